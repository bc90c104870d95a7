# SPDX-License-Identifier: Apache-2.0
"""AdamW, as its paper and PyTorch define it."""

from mindspore import ops

from src.training.adaptive import Adaptive


class AdamW(Adaptive):
    """Adam with bias-corrected moments and decoupled weight decay (arXiv 1711.05101, algorithm 2).

        m = beta1 * m + (1 - beta1) * g                v = beta2 * v + (1 - beta2) * g^2
        w -= lr * (m / c1 / (sqrt(v / c2) + epsilon) + weight_decay * w)      with  c = 1 - beta^step

    `nn.AdamWeightDecay` leaves the correction by c1 and c2 out. Its fused kernel takes plain numbers, though, and the
    line above is that kernel's with `lr * sqrt(c2) / c1`, `epsilon * sqrt(c2)` and `weight_decay * c1 / sqrt(c2)`.
    """

    def __init__(self, groups, learning_rate, betas=(0.9, 0.999), epsilon=1e-8):
        super().__init__(groups, learning_rate, betas, epsilon)
        self.fused = ops.AdamWeightDecay()

    def update_one(self, shared, rate, weight, moment1, moment2, decay, vector):
        shares, correction1, correction2 = shared
        root2 = ops.sqrt(correction2)
        ratio = root2 / correction1
        return self.fused(
            weight,
            moment1,
            moment2,
            rate * ratio,
            shares[0],
            shares[2],
            self.epsilon * root2,
            decay / ratio,
            vector.reshape(weight.shape),
        )
