# SPDX-License-Identifier: Apache-2.0
"""The value of a Parameter that the same graph has read before."""

from mindspore import nn, ops


class Read(nn.Cell):
    """Give the value of a Parameter as it is by now.

    By its name it would be the second reading in the graph, between which MindSpore cannot see that nothing changes:
    it would copy the Parameter both times, on every device. A descent of length 0 is one pass, and changes nothing.

    Inputs:
        parameter (Parameter): float32.
        direction (Tensor): of its shape, finite.
    """

    def __init__(self):
        super().__init__(auto_prefix=False)
        self.descend = ops.ApplyGradientDescent()

    def construct(self, parameter, direction):
        return self.descend(parameter, 0.0, direction)
