# SPDX-License-Identifier: Apache-2.0
"""Many tensors as one matrix, so that what is done to each of their elements is one kernel and not hundreds."""

import math

import mindspore as ms
from mindspore import nn, ops
from mindspore.ops.auto_generate import SplitWithSize

# Elements to a row: on CPU a sum row by row is ten times as fast as one over all elements at once.
ROW = 1024


class Flattening(nn.Cell):
    """Joins the tensors of each group end to end, into the rows of one matrix, zeros behind the last.

    Args:
        groups (sequence): of sequences of Parameters, whose shapes the tensors have; all float32.
    """

    def __init__(self, groups):
        super().__init__(auto_prefix=False)
        self.groups = tuple(tuple(parameter.shape for parameter in group) for group in groups)
        sizes = [[math.prod(shape) for shape in group] for group in self.groups]
        self.sizes = tuple((*group, -sum(group) % ROW) for group in sizes)
        self.split = SplitWithSize()
        self.on_cpu = ms.get_context("device_target") == "CPU"

    def flatten(self, tensors):
        """Return a matrix (rows, 1024) for each group, of all tensors group by group."""
        matrices, first = (), 0
        for shapes in self.groups:
            matrices += (self.flatten_group(tensors[first : first + len(shapes)]),)
            first += len(shapes)
        return matrices

    def flatten_group(self, tensors):
        """Return the matrix (rows, 1024) of the tensors of one group."""
        vectors, size = (), 0
        for tensor in tensors:
            vectors += (tensor if tensor.ndim == 1 else tensor.reshape(-1),)
            size += tensor.size
        if size % ROW > 0:
            vectors += (ops.zeros(-size % ROW, tensors[0].dtype),)
        return ops.concat(vectors).reshape(-1, ROW)

    def unflatten(self, matrices):
        """Return the tuple of tensors whose `flatten` is `matrices`."""
        tensors = ()
        for shapes, sizes, matrix in zip(self.groups, self.sizes, matrices):
            for shape, vector in zip(shapes, self.cut(matrix.reshape(-1), sizes)):
                tensors += (vector if len(shape) == 1 else vector.reshape(shape),)
        return tensors

    def cut(self, vector, sizes):
        # MindSpore 2.7 has no kernel on CPU that makes all pieces at once. And not `mint.split`: next to a view
        # MindSpore copies each Parameter wherever it is read.
        return ops.split(vector, sizes) if self.on_cpu else self.split(vector, sizes, 0)
