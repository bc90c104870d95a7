# SPDX-License-Identifier: Apache-2.0
"""How the training step is built: one graph without a branch, the gradients joined into matrices."""

import os
import re
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, ParameterTuple, nn, ops

from src.config import LossConfig, OptimizerConfig
from src.device import World
from src.training.ema import Ema
from src.training.flattening import Flattening
from src.training.losses import create_loss
from src.training.optimizer import create_optimizer
from src.training.step import TrainStep

ROOT = Path(__file__).resolve().parent.parent


def test_the_step_is_one_graph_without_a_branch(tmp_path):
    """Protects Ascend on hosts with less than 12 CPUs, for which MindSpore cannot build a graph with a branch."""
    code = (
        "import test_recipes as t; import mindspore as ms; ms.set_context(mode=ms.GRAPH_MODE);"
        "t.make(t.Net(), ema_decay=0.9, name='adamw', clip_norm=1.0, micro_batches=2)[0].compile(*t.images())"
    )
    saved = {"MS_DEV_SAVE_GRAPHS": "1", "MS_DEV_SAVE_GRAPHS_PATH": str(tmp_path)}
    environment = {**os.environ, **saved, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, check=True, capture_output=True)
    (graph,) = tmp_path.rglob("*_validate_*.ir")
    operators = set(re.findall(r" = (?:PrimFunc_)?(\w+)\(", graph.read_text()))
    assert "AdamWeightDecay" in operators and not {"Switch", "switch", "SwitchLayer"} & operators


class Many(nn.Cell):
    """A network of as many parameters as the deepest ones here have."""

    def __init__(self):
        super().__init__()
        self.weights = ParameterTuple([Parameter(np.ones((2, 3), np.float32), name=f"weight{i}") for i in range(400)])

    def construct(self, x):
        return ops.matmul(x, ops.addn(self.weights))


@pytest.mark.parametrize("name", ["momentum", "adamw"])
def test_any_number_of_parameters(name):
    """Protects deep networks: MindSpore compiles a thousand calls within each other, and takes loops for such."""
    ms.set_context(mode=ms.GRAPH_MODE)
    network = Many()
    optimizer = create_optimizer(network, OptimizerConfig(name=name), np.full(2, 0.1, np.float32))
    ema = Ema(network, 0.9)
    step = TrainStep(network, create_loss(LossConfig()), optimizer, World(), clip_norm=1.0, ema=ema)
    step(ms.Tensor(np.ones((4, 2), np.float32)), ms.Tensor(np.zeros(4, np.int32)))
    moved = [weight.asnumpy() for weight in network.weights]
    assert (moved[0][:, 0] > 1).all() and (np.array(moved) == moved[0]).all()


def test_flattening_is_undone():
    """Protects gradients from landing at another parameter: any mix of shapes comes back in its order."""
    random = np.random.default_rng(0)
    for groups in ([[(3,), (2, 2), (), (1,)], [(2, 1, 3), (3,), (), (32, 32)]], [[(32, 32)]], [[(4,), ()]], []):
        groups = [[ms.Tensor(random.standard_normal(shape), ms.float32) for shape in group] for group in groups]
        tensors = [tensor for group in groups for tensor in group]
        flattening = Flattening(groups)
        matrices = flattening.flatten(tensors)
        assert len(matrices) == len(groups)
        for matrix, group in zip(matrices, groups):
            expected = np.concatenate([tensor.asnumpy().reshape(-1) for tensor in group])
            assert matrix.shape[1] == 1024
            np.testing.assert_array_equal(matrix.asnumpy().reshape(-1)[: expected.size], expected)
            assert not matrix.asnumpy().reshape(-1)[expected.size :].any()
        back = flattening.vectors(matrices)
        assert len(back) == len(tensors)
        for vector, original in zip(back, tensors):
            np.testing.assert_array_equal(vector.asnumpy(), original.asnumpy().reshape(-1))
