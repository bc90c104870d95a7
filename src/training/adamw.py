# SPDX-License-Identifier: Apache-2.0
"""AdamW, as its paper and PyTorch define it."""

import math

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype


class AdamW(nn.Optimizer):
    """Adam with bias-corrected moments and decoupled weight decay (arXiv 1711.05101, algorithm 2).

        m = beta1 * m + (1 - beta1) * g                v = beta2 * v + (1 - beta2) * g^2
        w -= lr * (m / c1 / (sqrt(v / c2) + epsilon) + weight_decay * w)      with  c = 1 - beta^step

    `nn.AdamWeightDecay` leaves the correction by c1 and c2 out. Its fused kernel takes plain numbers, though, and the
    line above is that kernel's with `lr * sqrt(c2) / c1`, `epsilon * sqrt(c2)` and `weight_decay * c1 / sqrt(c2)`.

    Args:
        groups (list[dict]): "params" and "weight_decay" of each group, see `parameter_groups`.
        learning_rate (list[float]): the rate of each step; `global_step` is the position in it.
        betas (sequence): beta1 and beta2.
        epsilon (float): keeps the division finite.
    """

    def __init__(self, groups, learning_rate, betas=(0.9, 0.999), epsilon=1e-8):
        super().__init__(learning_rate, [parameter for group in groups for parameter in group["params"]])
        self.decays = tuple(float(group["weight_decay"]) for group in groups for _ in group["params"])
        self.moment1 = self._parameters.clone(prefix="moment1", init="zeros")
        self.moment2 = self._parameters.clone(prefix="moment2", init="zeros")
        self.beta1, self.beta2, self.epsilon = betas[0], betas[1], epsilon
        self.update = ops.AdamWeightDecay()

    def construct(self, gradients):
        rate = self.get_lr()
        self.assignadd(self.global_step, self.global_step_increase_tensor)
        step = self.global_step.astype(mstype.float32).reshape(())
        # expm1 keeps all digits where beta^step is next to 1.
        correction1 = -ops.expm1(step * math.log(self.beta1))
        root2 = ops.sqrt(-ops.expm1(step * math.log(self.beta2)))
        ratio = root2 / correction1
        done = ()
        for i, gradient in enumerate(gradients):
            done += self.update(
                self._parameters[i],
                self.moment1[i],
                self.moment2[i],
                rate * ratio,
                Tensor(self.beta1, mstype.float32),
                Tensor(self.beta2, mstype.float32),
                self.epsilon * root2,
                self.decays[i] / ratio,
                gradient,
            )
        return done
