# SPDX-License-Identifier: Apache-2.0
"""SGD with momentum."""

from mindspore import ops

from src.training.flat_optimizer import FlatOptimizer
from src.training.read import Read


class Momentum(FlatOptimizer):
    """SGD with momentum (Sutskever et al., ICML 2013), the weight decay being part of the gradient.

        velocity = momentum * velocity + gradient + weight_decay * w        w -= lr * velocity

    A step that is not taken has zeros for gradient, decay and rate, and a momentum of 1: both lines give back what was
    there.

    Args:
        groups (list[dict]), learning_rate (list[float]): see `FlatOptimizer`.
        momentum (float): the share of the velocity that a step keeps.
    """

    def __init__(self, groups, learning_rate, momentum):
        super().__init__(groups, learning_rate)
        self.momentum = momentum
        self.moments = self._parameters.clone(prefix="moments", init="zeros")
        self.opt = ops.ApplyMomentum()
        self.read = Read()

    def update(self, gradients, rates, is_taken, taken):
        momentum, decayed, first, done = self.kept(self.momentum, is_taken), (), 0, ()
        for gradient, decay, shapes in zip(gradients, self.group_decays, self.flattening.groups):
            if decay > 0:
                weights = ()
                for i in range(first, first + len(shapes)):
                    weights += (self.read(self._parameters[i], self.moments[i]),)
                gradient = self.flattening.flatten_group(weights) * (taken * decay) + gradient
            decayed += (gradient,)
            first += len(shapes)
        for i, gradient in enumerate(self.flattening.unflatten(decayed)):
            done += (self.opt(self._parameters[i], self.moments[i], rates[i], gradient, momentum),)
        return done
