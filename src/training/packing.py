# SPDX-License-Identifier: Apache-2.0
"""Many small tensors as one, so that what is done to each element is one kernel and not hundreds."""

import math

from mindspore import mint, nn, ops


class Packing(nn.Cell):
    """Joins those of some tensors that have less than two axes: scales and biases, alpha and beta, moving averages.

    Args:
        parameters (sequence): Parameters whose shapes the tensors have, in their order; all of one type.
    """

    def __init__(self, parameters):
        super().__init__(auto_prefix=False)
        self.shapes = tuple(parameter.shape for parameter in parameters)
        self.sizes = tuple(math.prod(shape) for shape in self.shapes if len(shape) < 2)

    def pack(self, tensors):
        """Return a tuple of the larger tensors, and last, where there are small ones, all of these in one (n,)."""
        large, small = (), ()
        for shape, tensor in zip(self.shapes, tensors):
            if len(shape) < 2:
                small += (tensor.reshape(-1),)
            else:
                large += (tensor,)
        return (*large, ops.concat(small)) if self.sizes else large

    def unpack(self, packed):
        """Return the tuple of tensors whose `pack` has the form of `packed`."""
        # `ops.split` would be a slice for each.
        small = mint.split(packed[-1], self.sizes, 0) if self.sizes else ()
        tensors, larges, smalls = (), 0, 0
        for shape in self.shapes:
            if len(shape) < 2:
                tensors += (small[smalls].reshape(shape),)
                smalls += 1
            else:
                tensors += (packed[larges],)
                larges += 1
        return tensors
