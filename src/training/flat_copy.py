# SPDX-License-Identifier: Apache-2.0
"""What Parameters were after the last step, for the next one."""

from mindspore import Parameter, ParameterTuple, nn, ops

from src.training.flattening import Flattening

_assign = ops.MultitypeFuncGraph("assign")


@_assign.register("Tensor", "Tensor")
def _(parameter, value):
    return ops.assign(parameter, value.reshape(parameter.shape))


class FlatCopy(nn.Cell):
    """A copy of Parameters, for a graph that changes them and needs what they were.

    Of a Parameter that is read by name before it changes, and again elsewhere, MindSpore makes two copies each time,
    one kernel each. Here a step leaves its results behind, of all Parameters in one.

    Args:
        groups (sequence): of sequences of Parameters, float32.
        name (str): of the copy.

    Attributes:
        matrices (ParameterTuple): (rows, 1024) for each group, see `Flattening`.
    """

    def __init__(self, groups, name):
        super().__init__(auto_prefix=False)
        self.flattening, self.map = Flattening(groups), ops.HyperMap()
        self.parameters = ParameterTuple([parameter for group in groups for parameter in group])
        matrices = self.flattening.flatten(self.parameters)
        self.matrices = ParameterTuple(
            [Parameter(matrix, name=f"{name}{i}", requires_grad=False) for i, matrix in enumerate(matrices)]
        )

    def take(self):
        """Copy anew; to call, outside a graph, where anything but a step has changed the Parameters."""
        for copy, matrix in zip(self.matrices, self.flattening.flatten(self.parameters)):
            copy.set_data(matrix)

    def keep(self, matrices):
        """Copy `matrices`, which the Parameters have become."""
        done = ()
        for copy, matrix in zip(self.matrices, matrices):
            done += (ops.assign(copy, matrix),)
        return done

    def assign(self, matrices):
        """Make `matrices` of the Parameters and of the copy."""
        return self.keep(matrices), self.map(_assign, self.parameters, self.flattening.vectors(matrices))
