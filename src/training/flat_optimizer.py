# SPDX-License-Identifier: Apache-2.0
"""What the optimisers here have in common: flat gradients, and steps that can be left out without a branch."""

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from src.training.flattening import Flattening

TAKEN = Tensor(True)


class FlatOptimizer(nn.Optimizer):
    """Takes the gradients of each group of parameters as one matrix; a subclass has the rule of the `update`.

    Where a step is not taken, every number of it is such that nothing changes (but that a zero may lose its sign). A
    branch in the graph would do the same; MindSpore builds none for Ascend on a host of few cores.

    Args:
        groups (list[dict]): "params", "weight_decay" and perhaps "lr" of each group, see `parameter_groups`.
        learning_rate (list[float]): the rate of each step; `global_step` is the position in it.

    Attributes:
        flattening (Flattening): of the gradients.

    Inputs:
        gradients (tuple[Tensor]): of the parameters, flattened; zeros where the step is not taken.
        is_taken (Tensor): bool (), whether the step is taken and counted.
    """

    def __init__(self, groups, learning_rate):
        super().__init__(learning_rate, groups)
        self.flattening = Flattening([group["params"] for group in groups])
        self.map = ops.HyperMap()
        self.group_decays = tuple(float(group["weight_decay"]) for group in groups)

    def begin(self):
        """Get ready for a step; to call again where anything but a step has changed the parameters."""

    def construct(self, gradients, is_taken=TAKEN):
        taken = is_taken.astype(mstype.float32)
        done = self.update(gradients, self.get_lr(), is_taken, taken)
        return ops.depend(done, self.assignadd(self.global_step, is_taken.astype(mstype.int32).reshape(1)))

    def for_each(self, move, shared, lr, taken, *tensors):
        """Return what `move(shared, rate, ...)` gives for each parameter; a rate is 0 where the step is not taken.

        Args:
            move: takes what is `shared` by all, its rate, float32 (), and its place in each of `tensors`.
            lr, taken: of `update`.
            tensors (tuples): with a place for each parameter.
        """
        if self.is_group_lr:
            return self.map(ops.partial(move, shared), self.map(ops.partial(ops.mul, taken), lr), *tensors)
        return self.map(ops.partial(move, shared, taken * lr), *tensors)

    def kept(self, share, is_taken):
        """Of an average, the share (float32 ()) that a step keeps: all of it where the step is not taken."""
        return ops.select(is_taken, share, ops.ones_like(share))

    def update(self, gradients, lr, is_taken, taken):
        """Change the parameters.

        Args:
            gradients (tuple[Tensor]), is_taken (Tensor): the inputs.
            lr (Tensor, tuple[Tensor]): the learning rate, of all or of each.
            taken (Tensor): `is_taken` as float32.
        """
        raise NotImplementedError
