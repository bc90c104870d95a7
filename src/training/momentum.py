# SPDX-License-Identifier: Apache-2.0
"""SGD with momentum."""

import mindspore as ms
from mindspore import Parameter, Tensor, ops
from mindspore import dtype as mstype

from src.training.flat_copy import FlatCopy
from src.training.flat_optimizer import FlatOptimizer


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
        self.decayed = tuple(i for i, decay in enumerate(self.group_decays) if decay > 0)
        self.last_weights = FlatCopy([groups[i]["params"] for i in self.decayed], "last_weights")
        self.opt = ops.ApplyMomentum()
        # On GPU MindSpore makes one operator of all of these, whose result is that of none; elsewhere the result saves
        # a copy of each weight.
        self.has_no_result = ms.get_context("device_target") == "GPU"

    def begin(self):
        self.last_weights.take()

    def update(self, gradients, lr, is_taken, taken):
        for i, weights in zip(self.decayed, self.last_weights.matrices):
            decayed = weights * (taken * self.group_decays[i]) + gradients[i]
            gradients = (*gradients[:i], decayed, *gradients[i + 1 :])
        momentum, vectors = self.kept(self.momentum, is_taken), self.flattening.vectors(gradients)
        done = self.for_each(self.move, momentum, lr, taken, self._parameters, self.moments, vectors)
        matrices, moved = self.flattening.matrices(done), ()
        for i in self.decayed:
            moved += (matrices[i],)
        return ops.depend(done, self.last_weights.keep(moved))

    def move(self, momentum, rate, weight, moment, vector):
        done = self.opt(weight, moment, rate, vector.reshape(weight.shape), momentum)
        return (ops.depend(weight, done) if self.has_no_result else done).reshape(-1)
