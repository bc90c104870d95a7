# SPDX-License-Identifier: Apache-2.0
"""SGD with momentum."""

from mindspore import Parameter, Tensor, ops
from mindspore import dtype as mstype

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
        self.momentum = Parameter(Tensor(momentum, mstype.float32), name="momentum")
        self.moments = self._parameters.clone(prefix="moments", init="zeros")
        self.weights = self.by_group(self._parameters)
        self.velocities = self.by_group(self.moments)
        self.read = Read()
        self.opt = ops.ApplyMomentum()

    def update(self, gradients, lr, is_taken, taken):
        momentum, decayed, done = self.kept(self.momentum, is_taken), (), ()
        for i, gradient in enumerate(gradients):
            decay = self.group_decays[i]
            if decay > 0:
                weights = self.flattening.flatten_group(self.read(self.weights[i], self.velocities[i]), i)
                gradient = weights * (taken * decay) + gradient
            decayed += (gradient,)
        for i, vector in enumerate(self.flattening.vectors(decayed)):
            weight, rate = self._parameters[i], self.rate(lr, i, taken)
            done += (self.opt(weight, self.moments[i], rate, vector.reshape(weight.shape), momentum),)
        return done
