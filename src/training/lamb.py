# SPDX-License-Identifier: Apache-2.0
"""LAMB: AdamW whose step is as long, layer by layer, as the weights allow."""

from mindspore import ops

from src.training.adaptive import Adaptive


class Lamb(Adaptive):
    """Layer-wise adaptive moments for large batches (You et al., arXiv 1904.00962, algorithm 2, phi(z) = z).

        m = beta1 * m + (1 - beta1) * g                v = beta2 * v + (1 - beta2) * g^2
        r = m / c1 / (sqrt(v / c2) + epsilon) + weight_decay * w              with  c = 1 - beta^step
        w -= lr * |w| / |r| * r

    As in the authors' code, the ratio is 1 where |w| or |r| is 0, and where there is no decay: norms, biases, alpha and
    beta begin at 0 or 1, which says nothing about how far they should go. `nn.Lamb` has no kernel on CPU, scales those
    too, and is deprecated.
    """

    def update_one(self, shared, rate, weight, moment1, moment2, decay, vector):
        shares, correction1, correction2 = shared
        gradient = vector.reshape(weight.shape)
        new1 = shares[0] * moment1 + shares[1] * gradient
        new2 = shares[2] * moment2 + shares[3] * ops.square(gradient)
        direction = new1 / correction1 / (ops.sqrt(new2 / correction2) + self.epsilon)
        if decay > 0:
            direction = direction + decay * weight
            rate = rate * self.trust_ratio(weight, direction)
        kept = ops.assign(moment1, new1), ops.assign(moment2, new2)
        return ops.depend(ops.assign(weight, weight - rate * direction), kept)

    def trust_ratio(self, weight, direction):
        of_weight, of_direction = ops.sqrt(ops.square(weight).sum()), ops.sqrt(ops.square(direction).sum())
        usable = ops.logical_and(of_weight > 0, of_direction > 0)
        return ops.select(usable, of_weight / of_direction, ops.ones_like(of_weight))
