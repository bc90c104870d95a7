# SPDX-License-Identifier: Apache-2.0
"""Small tensors of one shape as one, so that what is done to each element is a few kernels and not hundreds."""

from mindspore import nn, ops


class Packing(nn.Cell):
    """Stacks those of some tensors that have less than two axes: scales and biases, alpha and beta, moving averages.

    By shape, as stacks are taken apart by one kernel everywhere; MindSpore 2.7 has none on CPU for pieces of any size.

    Args:
        parameters (sequence): Parameters whose shapes the tensors have, in their order; all of one type.
    """

    def __init__(self, parameters):
        super().__init__(auto_prefix=False)
        groups = {}
        for place, parameter in enumerate(parameters):
            groups.setdefault(parameter.shape if parameter.ndim < 2 else place, []).append(place)
        self.groups = tuple(tuple(places) for places in groups.values())
        unpacked = [place for places in self.groups for place in places]
        self.order = tuple(unpacked.index(place) for place in range(len(unpacked)))

    def pack(self, tensors):
        """Return a tuple of the larger tensors (...), and for each shape of small ones a stack (n, ...)."""
        packed = ()
        for places in self.groups:
            members = ()
            for place in places:
                members += (tensors[place],)
            packed += (ops.stack(members) if len(members) > 1 else members[0],)
        return packed

    def unpack(self, packed):
        """Return the tuple of tensors whose `pack` has the form of `packed`."""
        unpacked, tensors = (), ()
        for places, tensor in zip(self.groups, packed):
            unpacked += ops.unstack(tensor) if len(places) > 1 else (tensor,)
        for place in self.order:
            tensors += (unpacked[place],)
        return tensors
