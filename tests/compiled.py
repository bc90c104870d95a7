# SPDX-License-Identifier: Apache-2.0
"""Functions of tensors, compiled; and what the reference implementation answered for its operators."""

import json

import mindspore as ms
import numpy as np
from golden_network import GOLDEN
from mindspore import Tensor, nn, ops

OPERATORS = np.load(GOLDEN / "downstream" / "operators.npz")
CASES = json.loads((GOLDEN / "downstream" / "operators.json").read_text())["cases"]


class _Compiled(nn.Cell):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def construct(self, *inputs):
        return self.function(*inputs)


class _Gradient(nn.Cell):
    def __init__(self, function):
        super().__init__()
        self.cell, self.gradient = _Compiled(function), ops.GradOperation(sens_param=True)

    def construct(self, *inputs):
        return self.gradient(self.cell)(*inputs)


def run(cell, *arrays):
    """The outputs of a Cell or function of tensors for arrays, in graph mode, as arrays."""
    ms.set_context(mode=ms.GRAPH_MODE)
    cell = cell if isinstance(cell, nn.Cell) else _Compiled(cell)
    outputs = cell(*[Tensor(array) for array in arrays])
    return outputs.asnumpy() if isinstance(outputs, Tensor) else [output.asnumpy() for output in outputs]


def gradient(function, *arrays):
    """The gradient of a Cell or function to its first input; the last array is the cotangent."""
    ms.set_context(mode=ms.GRAPH_MODE)
    return _Gradient(function)(*[Tensor(array) for array in arrays]).asnumpy()


def assert_near(got, expected, tolerance=1e-6):
    """Within `tolerance` of the largest number expected, or of 1."""
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() <= tolerance * max(np.abs(expected).max(), 1)
