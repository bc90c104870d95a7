# SPDX-License-Identifier: Apache-2.0
"""What optimisers with two moments have in common."""

import math

from mindspore import Tensor, ops
from mindspore import dtype as mstype

from src.training.flat_optimizer import FlatOptimizer


class Adaptive(FlatOptimizer):
    """Keeps the moving averages of the gradient and of its square, which `update_one` turns into steps.

    Args:
        groups (list[dict]), learning_rate (list[float]): see `FlatOptimizer`.
        betas (sequence): the share of each average that a step keeps.
        epsilon (float): keeps the division finite.
    """

    def __init__(self, groups, learning_rate, betas=(0.9, 0.999), epsilon=1e-8):
        super().__init__(groups, learning_rate)
        self.decays = tuple(float(decay) for decay in self.group_weight_decay)
        self.moment1 = self._parameters.clone(prefix="moment1", init="zeros")
        self.moment2 = self._parameters.clone(prefix="moment2", init="zeros")
        self.beta1, self.beta2, self.epsilon = betas[0], betas[1], epsilon

    def update(self, gradients, lr, is_taken, taken):
        # expm1 keeps all digits where beta^step is next to 1.
        step = (self.global_step + 1).astype(mstype.float32).reshape(())
        correction1 = -ops.expm1(step * math.log(self.beta1))
        correction2 = -ops.expm1(step * math.log(self.beta2))
        # Of each average what is kept of it and what comes in: 1 and 0 where the step is not taken.
        kept1 = self.kept(Tensor(self.beta1, mstype.float32), is_taken)
        kept2 = self.kept(Tensor(self.beta2, mstype.float32), is_taken)
        shares = (kept1, taken * (1 - self.beta1), kept2, taken * (1 - self.beta2))
        return self.for_each(
            self.update_one,
            (shares, correction1, correction2),
            *(lr, taken, self._parameters, self.moment1, self.moment2, self.decays),
            self.flattening.vectors(gradients),
        )

    def update_one(self, shared, rate, weight, moment1, moment2, decay, vector):
        """Move one parameter.

        Args:
            shared (tuple): of all parameters, the shares (tuple[Tensor]): what is kept of the first moment and what
                comes in, and of the second; and the corrections (Tensor) of the bias of the two moments.
            rate (Tensor): its learning rate.
            weight, moment1, moment2 (Parameter): to change.
            decay (float): the parameter's weight decay.
            vector (Tensor): its gradient, flat.
        """
        raise NotImplementedError
