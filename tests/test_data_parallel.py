# SPDX-License-Identifier: Apache-2.0
"""Two workers on one machine: together they do what one does with all the images."""

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from src.config import OptimizerConfig
from src.training.evaluate import EvaluationStep, evaluate
from src.training.optimizer import create_optimizer
from src.training.step import TrainStep

ROOT = Path(__file__).resolve().parent.parent
ALONE = SimpleNamespace(rank=0, size=1)
BATCHES, IMAGES = 3, 7


class Tiny(nn.Cell):
    """Without batch norm in the path: that takes each worker's own statistics, so the gradients would differ."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Dense(4, 3)

    def construct(self, x):
        return self.fc(self.conv(x).mean((2, 3)))


def images(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, 1, 6, 6)).astype(np.float32), rng.integers(0, 3, count).astype(np.int32)


def train_and_evaluate(world):
    """Train 3 steps on this worker's part of each batch of 8, then evaluate its share of 7 images."""
    ms.set_seed(5)
    network = Tiny()
    config = OptimizerConfig(weight_decay=1e-3)
    optimizer = create_optimizer(network, config, np.full(BATCHES, 0.5, np.float32))
    step = TrainStep(network, nn.CrossEntropyLoss(), optimizer, world)
    for number in range(BATCHES):
        step(*(ms.Tensor(part[world.rank :: world.size]) for part in images(8, seed=number)))
    share = tuple(part[world.rank :: world.size] for part in images(IMAGES, seed=9))
    dataset = ms.dataset.NumpySlicesDataset(share, ["image", "label"], shuffle=False).batch(2)
    result = evaluate(EvaluationStep(network), dataset, world)
    return {**{p.name: p.asnumpy() for p in network.trainable_params()}, **result}, network


WORKER = textwrap.dedent(
    """
    import sys
    from types import SimpleNamespace
    from src.device import setup_device
    import numpy as np
    from tests.test_data_parallel import train_and_evaluate
    from src.training.parallel import average_norm_statistics, check_same_weights

    world = setup_device(SimpleNamespace(target="CPU", device_id=0))
    values, network = train_and_evaluate(world)
    network.norm.moving_mean.set_data(network.norm.moving_mean + world.rank)
    average_norm_statistics(network, world)
    check_same_weights(network, world)
    network.fc.bias.set_data(network.fc.bias + 1e-6 * world.rank)
    try:
        check_same_weights(network, world)
        noticed = False
    except RuntimeError:
        noticed = True
    statistics = network.norm.moving_mean.asnumpy()
    np.savez(f"{sys.argv[1]}/{world.rank}.npz", statistics=statistics, noticed=noticed, **values)
    """
)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_two_workers_equal_one(tmp_path):
    """Protects data parallelism: averaged gradients, summed evaluation of unequal shares, averaged norm statistics."""
    (tmp_path / "worker.py").write_text(WORKER)
    msrun = ["--worker_num=2", "--local_worker_num=2", f"--master_port={free_port()}", "--join=True"]
    job = subprocess.run(
        [Path(sys.executable).with_name("msrun"), *msrun, f"--log_dir={tmp_path}", tmp_path / "worker.py", tmp_path],
        cwd=tmp_path,
        # msrun starts whatever `python` it finds first.
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert job.returncode == 0, job.stdout[-3000:] + job.stderr[-3000:]
    ms.set_context(mode=ms.GRAPH_MODE)
    expected, _ = train_and_evaluate(ALONE)
    first, second = (np.load(tmp_path / f"{rank}.npz") for rank in (0, 1))
    assert set(first.files) == {*expected, "statistics", "noticed"}
    assert first["noticed"]  # a worker whose weights went astray
    for name in first.files:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    for name, value in expected.items():
        assert first[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name
    np.testing.assert_array_equal(first["statistics"], np.full(4, 0.5, np.float32))
