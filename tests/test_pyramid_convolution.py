# SPDX-License-Identifier: Apache-2.0
"""A convolution of maps of several sizes beside what it replaces: resize, join, convolve."""

from contextlib import nullcontext

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from src.ops.kernels import fused_form
from src.ops.padded import padded
from src.ops.pyramid_convolution import PyramidConvolution
from src.ops.resize import resized


class Joined(nn.Cell):
    """Resize, join, convolve."""

    def __init__(self, convolution):
        super().__init__()
        self.convolution = convolution

    def construct(self, maps):
        size, joined = maps[0].shape[2:], ()
        for x in maps:
            joined += (resized(x, size),)
        return self.convolution(ops.concat(joined, 1))


class OfNumbers(nn.Cell):
    """A Cell of a tuple of maps (2, 3, *size) as one of all their numbers, (2, n)."""

    def __init__(self, cell, sizes):
        super().__init__()
        self.cell, self.sizes = cell, sizes

    def construct(self, numbers):
        maps, first = (), 0
        for height, width in self.sizes:
            end = first + 3 * height * width
            maps += (numbers[:, first:end].reshape(2, 3, height, width),)
            first = end
        return self.cell(maps)


class OutputAndGradients(nn.Cell):
    """The output, and the gradients of numbers and parameters for a cotangent."""

    def __init__(self, cell):
        super().__init__()
        self.cell, self.parameters = cell, ms.ParameterTuple(cell.trainable_params())
        self.gradient = ops.GradOperation(get_all=True, get_by_list=True, sens_param=True)

    def construct(self, numbers, cotangent):
        return self.cell(numbers), self.gradient(self.cell, self.parameters)(numbers, cotangent)


@pytest.mark.parametrize(
    ("kernel", "sizes", "has_bias", "form"),
    [
        (3, ((8, 12), (4, 6), (2, 3), (1, 2)), False, nullcontext),
        (3, ((9, 7), (5, 4), (3, 9)), True, nullcontext),  # no whole ratios, and a map that is wider
        # A kernel that is larger than the maps, and a map that is made smaller.
        (5, ((3, 2), (1, 1), (6, 5)), True, nullcontext),
        (1, ((6, 6), (3, 3)), False, nullcontext),
        (3, ((17, 11), (8, 5)), True, fused_form),
    ],
)
def test_it_is_the_convolution_of_joined_maps(kernel, sizes, has_bias, form):
    """Protects what files of UperNet mean: borders, any ratio, output and all gradients, in a graph."""
    ms.set_context(mode=ms.GRAPH_MODE)
    rng = np.random.default_rng(0)
    settings = dict(kernel_size=kernel, pad_mode="pad", padding=kernel // 2, has_bias=has_bias)
    ours, plain = (kind(3 * len(sizes), 4, **settings) for kind in (PyramidConvolution, nn.Conv2d))
    for parameter, other in zip(ours.get_parameters(), plain.get_parameters(), strict=True):
        value = Tensor(rng.standard_normal(parameter.shape).astype(np.float32))
        parameter.set_data(value)
        other.set_data(value)
    numbers = rng.standard_normal((2, sum(3 * height * width for height, width in sizes)))
    cotangent = rng.standard_normal((2, 4, *sizes[0]))
    answers = []
    for cell in (ours, Joined(plain)):
        step = OutputAndGradients(OfNumbers(cell, sizes))
        with form():
            out, (of_numbers, of_parameters) = step(Tensor(numbers, ms.float32), Tensor(cotangent, ms.float32))
        answers.append([array.asnumpy() for array in (out, *of_numbers, *of_parameters)])
    for got, wanted in zip(*answers, strict=True):
        assert got.shape == wanted.shape
        assert np.abs(got - wanted).max() < 5e-6 * np.abs(wanted).max()


@pytest.mark.parametrize(("axis", "multiple"), [(1, 4), (2, 7), (2, 5)])
def test_zeros_fill_an_axis_up(axis, multiple):
    """In a graph, with its gradient."""
    ms.set_context(mode=ms.GRAPH_MODE)
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 2)).astype(np.float32)
    expected = np.pad(x, [(0, -x.shape[axis] % multiple if axis == other else 0) for other in range(4)])

    def filled(x):
        return padded(x, axis, multiple)

    np.testing.assert_array_equal(ms.jit(filled)(Tensor(x)).asnumpy(), expected)
    gradient = ms.jit(ops.GradOperation(sens_param=True)(filled))(Tensor(x), Tensor(2 * expected + 1))
    np.testing.assert_array_equal(gradient.asnumpy(), 2 * x + 1)
