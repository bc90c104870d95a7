# SPDX-License-Identifier: Apache-2.0
"""Maps of another size beside what the reference implementation makes of them, forward and gradient."""

import contextlib
import json

import mindspore as ms
import numpy as np
import onnx
import pytest
from golden import rule
from golden_network import GOLDEN
from mindspore import Tensor, nn, ops
from mindspore.onnx import export

from src.ops.resize import by_products, enlarged, pooled, resized, resized_with_classes_last

CASES = json.loads((GOLDEN / "downstream" / "operators.json").read_text())["cases"]
# Nearer to float64 than the reference, whose places in float32 make up to 1.8e-6.
OF_PRODUCTS = 2.5e-6
ARRAYS = np.load(GOLDEN / "downstream" / "operators.npz")


class Sized(nn.Cell):
    """`function(x, size)` of a fixed size."""

    def __init__(self, function, size):
        super().__init__()
        self.function, self.size = function, size

    def construct(self, x):
        return self.function(x, self.size)


class WithGradient(nn.Cell):
    """A Cell's output and its gradient for a cotangent."""

    def __init__(self, cell):
        super().__init__()
        self.cell, self.gradient = cell, ops.GradOperation(sens_param=True)

    def construct(self, x, cotangent):
        return self.cell(x), self.gradient(self.cell)(x, cotangent)


def judge(function, size, name, case, side, tolerance=1e-6):
    ms.set_context(mode=ms.GRAPH_MODE)
    expected, gradient = ARRAYS[f"{name}.y{case}"], ARRAYS[f"{name}.g{case}"]
    x = Tensor(rule.make_input((2, 3, *side), 0, f"op_{name}"))
    cotangent = Tensor(rule.make_input(expected.shape, 0, f"op_{name}_cotangent"))
    for got, wanted in zip(WithGradient(Sized(function, size))(x, cotangent), (expected, gradient)):
        assert got.shape == wanted.shape
        assert np.abs(got.asnumpy() - wanted).max() < tolerance * max(np.abs(wanted).max(), 1)


def classes_first_again(x, size):
    return resized_with_classes_last(x, size).transpose(2, 3, 1, 0)


@pytest.mark.parametrize("case", CASES["resize"]["cases"])
def test_bilinear(case):
    """Larger, smaller, from one pixel, and by no whole factor; also with the classes last, as the loss has them."""
    side, size = CASES["resize"]["cases"][case]
    judge(resized, tuple(size), "resize", case, side)
    judge(classes_first_again, tuple(size), "resize", case, side, OF_PRODUCTS)
    x, expected = Tensor(rule.make_input((2, 3, *side), 0, "op_resize")), ARRAYS[f"resize.y{case}"]
    with by_products():  # of exported files, which have no gradient
        assert np.abs(Sized(resized, tuple(size))(x).asnumpy() - expected).max() < OF_PRODUCTS


@pytest.mark.parametrize("case", CASES["pool"]["cases"])
def test_pools(case):
    """Cells that overlap, and more cells than pixels."""
    side, count = CASES["pool"]["cases"][case]
    judge(pooled, count, "pool", case, side)


def test_products_are_asked_for_when_a_graph_is_compiled(tmp_path):
    """MindSpore's exporter knows them alone; a graph compiled after an export has the faster operator again."""
    ms.set_context(mode=ms.GRAPH_MODE)
    x = Tensor(rule.make_input((1, 2, 5, 7), 0, "op_resize"))
    for _ in range(2):
        with by_products():
            export(Sized(resized, (13, 20)), x, file_name=str(tmp_path / "x.onnx"))
        operators = {node.op_type for node in onnx.load(tmp_path / "x.onnx").graph.node}
        assert "MatMul" in operators and "Resize" not in operators
        with pytest.raises(RuntimeError, match="ResizeBilinearV2"):
            export(Sized(resized, (13, 20)), x, file_name=str(tmp_path / "y.onnx"))


@pytest.mark.parametrize("form", [contextlib.nullcontext, by_products])
@pytest.mark.parametrize("size", [(6, 10), (5, 9), (3, 5), (7, 4)])
def test_repeated_pixels_are_the_nearest(size, form):
    """Twice as large and other sizes; each pixel's gradient is the sum over its copies; also as exported."""
    ms.set_context(mode=ms.GRAPH_MODE)
    rng = np.random.default_rng(0)
    x, cotangent = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 3, 3, 5), (2, 3, *size)))
    rows, columns = np.arange(size[0]) * 3 // size[0], np.arange(size[1]) * 5 // size[1]
    with form():
        out, gradient = WithGradient(Sized(enlarged, size))(Tensor(x), Tensor(cotangent))
    np.testing.assert_array_equal(out.asnumpy(), x[:, :, rows][..., columns])
    expected = np.zeros_like(x)
    np.add.at(expected, (slice(None), slice(None), rows[:, None], columns), cotangent)
    np.testing.assert_allclose(gradient.asnumpy(), expected, atol=1e-5)
