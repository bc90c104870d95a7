# SPDX-License-Identifier: Apache-2.0
"""What optimisers with two moments have in common."""

import math

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from src.training.momentum import TAKEN


class Adaptive(nn.Optimizer):
    """Keeps the moving averages of the gradient and of its square, which `update` turns into steps.

    Args:
        groups (list[dict]): "params", "weight_decay" and perhaps "lr" of each group, see `parameter_groups`.
        learning_rate (list[float]): the rate of each step; `global_step` is the position in it.
        betas (sequence): the share of each average that a step keeps.
        epsilon (float): keeps the division finite.

    Inputs:
        gradients (tuple[Tensor]), is_taken (Tensor): see `Momentum`.
    """

    def __init__(self, groups, learning_rate, betas=(0.9, 0.999), epsilon=1e-8):
        super().__init__(learning_rate, groups)
        self.decays = tuple(float(decay) for decay in self.group_weight_decay)
        self.moment1 = self._parameters.clone(prefix="moment1", init="zeros")
        self.moment2 = self._parameters.clone(prefix="moment2", init="zeros")
        self.beta1, self.beta2, self.epsilon = betas[0], betas[1], epsilon

    def construct(self, gradients, is_taken=TAKEN):
        rates = self.get_lr()
        # expm1 keeps all digits where beta^step is next to 1.
        step = (self.global_step + 1).astype(mstype.float32).reshape(())
        correction1 = -ops.expm1(step * math.log(self.beta1))
        correction2 = -ops.expm1(step * math.log(self.beta2))
        self.assignadd(self.global_step, is_taken.astype(mstype.int32).reshape(1))
        taken = is_taken.astype(mstype.float32)
        # Of each average what is kept of it and what comes in: 1 and 0 where the step is not taken.
        shares = (
            ops.select(is_taken, Tensor(self.beta1, mstype.float32), Tensor(1, mstype.float32)),
            taken * (1 - self.beta1),
            ops.select(is_taken, Tensor(self.beta2, mstype.float32), Tensor(1, mstype.float32)),
            taken * (1 - self.beta2),
        )
        done = ()
        for i, gradient in enumerate(gradients):
            rate = taken * (rates[i] if self.is_group_lr else rates)
            done += (self.update(i, gradient, rate, shares, correction1, correction2),)
        return done
