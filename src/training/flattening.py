# SPDX-License-Identifier: Apache-2.0
"""Many tensors as one matrix, so that what is done to each of their elements is one kernel and not hundreds."""

import itertools
import math

from mindspore import nn, ops

from src.ops.split_sizes import SplitSizes

# Elements to a row: on CPU a sum row by row is ten times as fast as one over all elements at once.
ROW = 1024
# Pieces that are cut at once: MindSpore looks at their sizes in a loop, of three calls each turn, see below.
PIECES = 200

_vector = ops.MultitypeFuncGraph("vector")


@_vector.register("Tensor")
def _(tensor):
    return tensor.reshape(-1)


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
        self.filling = tuple(-sum(group) % ROW for group in sizes)
        self.counts = tuple(map(len, sizes))
        # What is cut at once, and how large the whole of it is; a filling is the last piece.
        pieces = [[*group, filling] if filling else group for group, filling in zip(sizes, self.filling)]
        self.sizes = tuple(map(_in_turns, pieces))
        self.spans = tuple(tuple(map(sum, turns)) for turns in self.sizes)
        self.map = ops.HyperMap()
        self.split = SplitSizes(0)

    def flatten(self, tensors):
        """Return a matrix (rows, 1024) for each group, of all tensors group by group."""
        return self.matrices(self.map(_vector, tensors))

    def matrices(self, vectors):
        """Return what `flatten` does of tensors that are vectors (n,) already."""
        matrices, first = (), 0
        for i, end in enumerate(self.ends):
            matrices += (self.matrix(vectors[first:end], self.filling[i]),)
            first = end
        return matrices

    def matrix(self, vectors, filling):
        if filling > 0:
            vectors += (ops.zeros(filling, vectors[0].dtype),)
        return ops.concat(vectors).reshape(-1, ROW)

    def vectors(self, matrices):
        """Return the vectors (n,) of which `matrices` are made."""
        vectors = ()
        for i, matrix in enumerate(matrices):
            vector, pieces = matrix.reshape(-1), ()
            spans = self.split(vector, self.spans[i]) if len(self.spans[i]) > 1 else (vector,)
            for span, sizes in zip(spans, self.sizes[i]):
                pieces += self.split(span, sizes)
            vectors += pieces[: self.counts[i]]
        return vectors


def _in_turns(sizes):
    return tuple(tuple(sizes[first : first + PIECES]) for first in range(0, len(sizes), PIECES))
