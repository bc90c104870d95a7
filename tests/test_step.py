# SPDX-License-Identifier: Apache-2.0
"""How the training step is built: one graph without a branch, small tensors of one shape packed into one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np

from src.training.packing import Packing

ROOT = Path(__file__).resolve().parent.parent


def test_the_step_is_one_graph_without_a_branch(tmp_path):
    """Protects Ascend on hosts with less than 12 CPUs, for which MindSpore cannot build a graph with a branch."""
    code = (
        "import test_recipes as t; import mindspore as ms; ms.set_context(mode=ms.GRAPH_MODE);"
        "t.make(t.Net(), ema_decay=0.9, name='adamw', clip_norm=1.0)[0].compile(*t.images())"
    )
    saved = {"MS_DEV_SAVE_GRAPHS": "1", "MS_DEV_SAVE_GRAPHS_PATH": str(tmp_path)}
    environment = {**os.environ, **saved, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, check=True, capture_output=True)
    (graph,) = tmp_path.rglob("*_validate_*.ir")
    operators = set(re.findall(r" = (?:PrimFunc_)?(\w+)\(", graph.read_text()))
    assert "AdamWeightDecay" in operators and not {"Switch", "switch", "SwitchLayer"} & operators


def test_packing_is_undone():
    """Protects gradients from landing at another parameter: any mix of shapes comes back in its order."""
    for shapes in ([(3,), (2, 2), (), (1,), (2, 1, 3), (3,), (), (2, 2), (3,)], [(2, 2)], [(4,), ()], []):
        random = np.random.default_rng(0)
        tensors = [ms.Tensor(random.standard_normal(shape), ms.float32) for shape in shapes]
        packing = Packing(tensors)
        packed = packing.pack(tensors)
        small = [shape for shape in shapes if len(shape) < 2]
        assert len(packed) == len(shapes) - len(small) + len(set(small))
        back = packing.unpack(packed)
        assert [tensor.shape for tensor in back] == shapes
        for tensor, original in zip(back, tensors):
            np.testing.assert_array_equal(tensor.asnumpy(), original.asnumpy())
