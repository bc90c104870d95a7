# SPDX-License-Identifier: Apache-2.0
"""SGD with momentum that can leave a step out without a branch, as all optimisers here can."""

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

TAKEN = Tensor(True)


class Momentum(nn.Momentum):
    """`nn.Momentum`; of a step that is not taken every number is such that nothing changes (a zero may lose its sign).

    velocity = momentum * velocity + gradient + weight_decay * w        w -= lr * velocity

    With zeros for gradient, decay and rate, and a momentum of 1, both lines give back what was there. A branch in the
    graph would do the same, but MindSpore builds none for Ascend on a host of few cores.

    Inputs:
        gradients (tuple[Tensor]): of the parameters; zeros where the step is not taken.
        is_taken (Tensor): bool (), whether the step is taken and counted.
    """

    def construct(self, gradients, is_taken=TAKEN):
        rates = self.get_lr()
        self.assignadd(self.global_step, is_taken.astype(mstype.int32).reshape(1))
        taken = is_taken.astype(mstype.float32)
        momentum = ops.select(is_taken, self.momentum, ops.ones_like(taken))
        decayed, done = (), ()
        for i, gradient in enumerate(gradients):
            decay = taken * self.weight_decay[i]
            decayed += (self.params[i] * decay + gradient if self.decay_flags[i] else gradient,)
        for i, gradient in enumerate(decayed):
            rate = taken * (rates[i] if self.is_group_lr else rates)
            done += (self.opt(self.params[i], self.moments[i], rate, gradient, momentum),)
        return done
