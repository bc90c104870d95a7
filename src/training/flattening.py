# SPDX-License-Identifier: Apache-2.0
"""Many tensors as one matrix, so that what is done to each of their elements is one kernel and not hundreds."""

import itertools
import math

import mindspore as ms
from mindspore import nn, ops
from mindspore.ops.auto_generate import SplitWithSize

# Elements to a row: on CPU a sum row by row is ten times as fast as one over all elements at once.
ROW = 1024

_vector = ops.MultitypeFuncGraph("vector")


@_vector.register("Tensor")
def _(tensor):
    return tensor.reshape(-1)


_slice = ops.MultitypeFuncGraph("slice")


@_slice.register("Tensor", "Number", "Number")
def _(vector, start, size):
    return vector[start : start + size]


class Flattening(nn.Cell):
    """Joins the tensors of each group end to end, into the rows of one matrix, zeros behind the last.

    Loops over all parameters are `HyperMap`s: in a `for` each turn is a call within that of the turn before, of which
    MindSpore takes a thousand.

    Args:
        groups (sequence): of sequences of Parameters, whose shapes the tensors have; all float32.
    """

    def __init__(self, groups):
        super().__init__(auto_prefix=False)
        sizes = [[math.prod(parameter.shape) for parameter in group] for group in groups]
        self.ends = tuple(itertools.accumulate(len(group) for group in groups))
        self.sizes = tuple((*group, -sum(group) % ROW) for group in sizes)
        self.starts = tuple((0, *itertools.accumulate(group)) for group in sizes)
        self.map = ops.HyperMap()
        self.split = SplitWithSize()
        # MindSpore 2.7 has no kernel on CPU that makes all pieces at once. And not `mint.split`: next to a view
        # MindSpore copies each Parameter wherever it is read.
        self.slices = ms.get_context("device_target") == "CPU" and ms.__version__.startswith(("2.7.", "2.8."))

    def flatten(self, tensors):
        """Return a matrix (rows, 1024) for each group, of all tensors group by group."""
        matrices, first = (), 0
        for i, end in enumerate(self.ends):
            matrices += (self.flatten_group(tensors[first:end], i),)
            first = end
        return matrices

    def flatten_group(self, tensors, i):
        """Return the matrix (rows, 1024) of the tensors of the group of number i."""
        vectors, filling = self.map(_vector, tensors), self.sizes[i][-1]
        if filling > 0:
            vectors += (ops.zeros(filling, tensors[0].dtype),)
        return ops.concat(vectors).reshape(-1, ROW)

    def vectors(self, matrices):
        """Return the tuple of tensors whose `flatten` is `matrices`, each as a vector (n,)."""
        vectors = ()
        for i, matrix in enumerate(matrices):
            vectors += self.cut(matrix, i)[:-1]
        return vectors

    def cut(self, matrix, i):
        if self.slices:
            return self.map(ops.partial(_slice, matrix.reshape(-1)), self.starts[i], self.sizes[i])
        return self.split(matrix.reshape(-1), self.sizes[i], 0)
