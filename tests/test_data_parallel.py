# SPDX-License-Identifier: Apache-2.0
"""Two workers on one machine: together they do what one does with all the images."""

import dataclasses
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops
from PIL import Image
from scene_training import scene_config
from shell import free_port

from src.config import DataConfig, OptimizerConfig
from src.data.dataset import create_dataset, iterate
from src.ops import ACmix
from src.tasks import create_task
from src.tasks.class_judge import ClassJudge, EvaluationStep
from src.training.evaluate import evaluate
from src.training.optimizer import create_optimizer
from src.training.parallel import gather_from_workers
from src.training.step import TrainStep

ROOT = Path(__file__).resolve().parent.parent
ALONE = SimpleNamespace(rank=0, size=1)
BATCHES = 3


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


def train_and_evaluate(folder, world):
    """Train 3 steps on this worker's part of each batch of 8, then evaluate its share of 5 images, and of one."""
    ms.set_seed(5)
    network = Tiny()
    config = OptimizerConfig(weight_decay=1e-3)
    optimizer = create_optimizer(network, config, np.full(BATCHES, 0.5, np.float32))
    step = TrainStep(network, nn.CrossEntropyLoss(), optimizer, world, micro_batches=world.size)
    for number in range(BATCHES):
        step(*(ms.Tensor(part[world.rank :: world.size]) for part in images(8, seed=number)))
    judge, results = ClassJudge(EvaluationStep(network), np.zeros((2, 1, 32, 32), np.float32), range(3)), {}
    for split in ("val", "single"):
        data = dataclasses.replace(files(folder, 2), val_split=split)
        result = evaluate(judge, create_dataset(data, 32, 1, "val", world.rank, world.size), world)
        results |= {f"{split}.{name}": value for name, value in result.items()}
    return {**{p.name: p.asnumpy() for p in network.trainable_params()}, **results}, network


def folder_of_images(folder):
    """Write 27 images to train on, of which batches of 8 leave 3 out; 5 and 1 to evaluate on by two workers."""
    rng = np.random.default_rng(0)
    for split, counts in (("train", (13, 14)), ("val", (2, 3)), ("single", (1,))):
        for label, count in enumerate(counts):
            place = folder / split / str(label)
            place.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(place / f"{i}.png")


def files(folder, batch_size):
    """Return the `DataConfig` of `folder_of_images`, with nothing left to chance but the order."""
    whole = {"hflip": 0.0, "crop_scale": [1, 1], "crop_ratio": [1, 1], "mean": [0.5], "std": [0.5]}
    return DataConfig(data_dir=str(folder), batch_size=batch_size, num_workers=1, **whole)


def train_on_files(folder, world):
    """Train an ACmix layer for two epochs of 3 steps of 8 images; return the losses."""
    ms.set_seed(5)
    mixed = ACmix(8, 8, kernel_att=3, heads=2, kernel_conv=3)
    network = nn.SequentialCell(nn.Conv2d(1, 8, 4, 4), mixed, nn.Flatten(), nn.Dense(8 * 8 * 8, 2))
    data = files(folder, 8 // world.size)
    config = OptimizerConfig(name="adamw", weight_decay=0.05)
    optimizer = create_optimizer(network, config, np.full(2 * BATCHES, 1e-3, np.float32))
    step = TrainStep(network, nn.CrossEntropyLoss(), optimizer, world)
    losses = []
    for epoch in (1, 2):
        for batch in iterate(create_dataset(data, 32, 1, "train", world.rank, world.size, seed=3, epoch=epoch)):
            losses.append(step(*batch)[0].asnumpy())
    return gather_from_workers(losses, world).mean(axis=0)


class Patches(nn.Cell):
    """The classes of patches of 4 x 4 pixels: a segmenter."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 11, 4, 4)

    def construct(self, x):
        logits = self.conv(x)
        return (logits,) if self.training else logits


class Cells(nn.Cell):
    """The classes of boxes of 16 x 16 pixels, side by side, and how they move: a detector."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 14, 16, 16)
        corners = np.stack(np.meshgrid(range(0, 64, 16), range(0, 64, 16)), -1).reshape(-1, 2)
        self.anchors = ms.Tensor(np.concatenate([corners, corners + 16], 1).astype(np.float32))

    def construct(self, x, size=None):
        answers = self.conv(x).transpose(0, 2, 3, 1).reshape(-1, 16, 14)
        logits, deltas = answers[..., :10], answers[..., 10:]
        if self.training:
            return logits, deltas, self.anchors
        scores, labels = ops.max(logits, -1)
        return self.anchors + 4 * deltas, ops.sigmoid(scores), labels.astype(ms.int32)


# Of each head what its training on scenes says, and a network that is as simple as one can be.
ON_SCENES = {"fpn": Patches, "retinanet": Cells}


def train_on_scenes(head, folder, world):
    """Train for two epochs of two steps of 4 images, and judge 3 images; return losses, weights and scores.

    A detector's loss is by the boxes of a worker's share, so alone the shares go through the network one by one.
    """
    ms.set_seed(5)
    (folder / f"{world.rank}").mkdir(exist_ok=True)
    config = scene_config(head, folder / "scenes", folder / f"{world.rank}")
    data = dataclasses.replace(config.data, batch_size=4 // world.size)
    task = create_task(dataclasses.replace(config, data=data, output_dir=str(folder / head)))
    task.open_to_train()
    network, shares = ON_SCENES[head](), 2 // world.size
    optimizer = create_optimizer(network, OptimizerConfig(), np.full(4, 0.1, np.float32))
    step = TrainStep(network, task.loss(network), optimizer, world, micro_batches=shares)
    losses = []
    for epoch in (0, 1):
        for batch in iterate(task.batches("train", world, epoch)):
            parts = (np.concatenate([part.asnumpy()[share::shares] for share in range(shares)]) for part in batch)
            losses.append(step(*map(ms.Tensor, parts))[0].asnumpy())
    result = evaluate(task.judge(network), task.batches("val", world), world)
    values = {"losses": gather_from_workers(losses, world).mean(axis=0), "weights": network.conv.weight.asnumpy()}
    return {f"{head}.{name}": value for name, value in {**values, **result}.items()}


WORKER = textwrap.dedent(
    """
    import sys
    from types import SimpleNamespace
    from src.device import setup_device
    import numpy as np
    from pathlib import Path
    from test_data_parallel import ON_SCENES, train_and_evaluate, train_on_files, train_on_scenes
    from src.errors import UserError
    from src.training.parallel import average_norm_statistics, check_same_weights, gather_from_workers

    world = setup_device(SimpleNamespace(target="CPU", device_id=0))
    values, network = train_and_evaluate(sys.argv[1], world)
    network.norm.moving_mean.set_data(network.norm.moving_mean + world.rank)
    average_norm_statistics(network, world)
    check_same_weights(network, world)
    network.fc.bias.set_data(network.fc.bias + 1e-6 * world.rank)
    try:
        check_same_weights(network, world)
    except UserError as error:
        astray = str(error)
    gathered = gather_from_workers(np.array([2.0**40 + world.rank, world.rank / 3]), world)
    values["losses"] = train_on_files(sys.argv[1], world)
    for head in ON_SCENES:
        values |= train_on_scenes(head, Path(sys.argv[1]), world)
    statistics = network.norm.moving_mean.asnumpy()
    np.savez(f"{sys.argv[1]}/{world.rank}.npz", statistics=statistics, astray=astray, gathered=gathered, **values)
    """
)


def test_two_workers_equal_one(scenes, tmp_path):
    """Protects data parallelism: two workers at batch 4 have the losses, weights and evaluation of one at batch 8.

    Of the classes of images, of pixels, and of boxes. So gradients are means over the workers, each step has the same
    images, unequal shares are each counted once, and norm statistics are averaged. A worker whose weights went astray
    is named on all workers.
    """
    folder_of_images(tmp_path)
    (tmp_path / "scenes").symlink_to(scenes)
    (tmp_path / "worker.py").write_text(WORKER)
    msrun = ["--worker_num=2", "--local_worker_num=2", f"--master_port={free_port()}", "--join=True"]
    job = subprocess.run(
        [Path(sys.executable).with_name("msrun"), *msrun, f"--log_dir={tmp_path}", tmp_path / "worker.py", tmp_path],
        cwd=tmp_path,
        # msrun starts whatever `python` it finds first.
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}:{ROOT}/tests",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert job.returncode == 0, job.stdout[-3000:] + job.stderr[-3000:]
    ms.set_context(mode=ms.GRAPH_MODE)
    expected = {**train_and_evaluate(tmp_path, ALONE)[0], "losses": train_on_files(tmp_path, ALONE)}
    for head in ON_SCENES:
        expected |= train_on_scenes(head, tmp_path, ALONE)
    first, second = (np.load(tmp_path / f"{rank}.npz") for rank in (0, 1))
    assert set(first.files) == {*expected, "statistics", "astray", "gathered"}
    for name in first.files:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    for name, value in expected.items():
        assert first[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name
    assert (first["val.samples"], first["single.samples"]) == (5, 1)
    assert len(first["losses"]) == 2 * BATCHES
    for head in ON_SCENES:
        assert len(first[f"{head}.losses"]) == 4 and first[f"{head}.samples"] == 3
    np.testing.assert_array_equal(first["statistics"], np.full(4, 0.5, np.float32))
    assert str(first["astray"]).startswith("worker(s) 1 of 2 hold other weights")
    np.testing.assert_allclose(first["gathered"], [[2.0**40, 0], [2.0**40 + 1, 1 / 3]], rtol=1e-14)
    assert first["gathered"][1, 0] == 2.0**40 + 1
