# SPDX-License-Identifier: Apache-2.0
"""The moving average of the weights, a second network that often judges better than the first."""

from contextlib import contextmanager

from mindspore import ParameterTuple, nn, ops
from mindspore import dtype as mstype

from src.training.flat_copy import FlatCopy


class Ema(nn.Cell):
    """Averages of the parameters of a network, each step a little nearer to them; for a graph, after its update.

    After step t:  average += (1 - d) * (weight - average)   with  d = min(decay, (1 + t) / (10 + t))

    so that a short run forgets its first weights too (as in TensorFlow's `ExponentialMovingAverage`). The statistics of
    batch norms are averaged like weights: those of the last few steps would not fit weights of many.

    Attributes:
        averages (ParameterTuple): named `ema.<name>`; equal to the weights at first.

    Args:
        network (nn.Cell): whose floating-point parameters, frozen ones and statistics too, are averaged.
        decay (float): from 0 to below 1, the share of the average that a step keeps.

    Inputs:
        step (Tensor): int32 (1,), updates so far, this one included: the optimiser's `global_step`.
        is_taken (Tensor): bool (), whether this one is; the averages stay where it is not.
    """

    def __init__(self, network, decay):
        super().__init__(auto_prefix=False)
        self.decay = decay
        weights = [p for p in network.get_parameters() if p.dtype == mstype.float32]
        self.weights = ParameterTuple(weights)
        self.averages = self.weights.clone(prefix="ema")
        self.last_averages = FlatCopy([self.averages], "last_averages")
        self.swap = Swap(self.weights, self.averages)

    def begin(self):
        """Get ready for a step; to call again where anything but a step has changed the averages."""
        self.last_averages.take()

    def construct(self, step, is_taken):
        step = step.astype(mstype.float32).reshape(())
        rate = is_taken.astype(mstype.float32) * (1 - ops.minimum(self.decay, (1 + step) / (10 + step)))
        (weights,), (last,) = self.last_averages.flattening.flatten(self.weights), self.last_averages.matrices
        return self.last_averages.assign((last + rate * (weights - last),))

    @contextmanager
    def in_place(self):
        """Within it the network has the averages, to be evaluated or saved, and the averages are the weights."""
        self.swap()
        try:
            yield
        finally:
            self.swap()


class Swap(nn.Cell):
    """Exchange the values of Parameters; by a graph, as after one by `set_data` later updates did not reach the host.

    Args:
        some (ParameterTuple), others (ParameterTuple): alike in shapes and types.
    """

    def __init__(self, some, others):
        super().__init__(auto_prefix=False)
        self.some, self.others = some, others

    def construct(self):
        done = ()
        for one, other in zip(self.some, self.others):
            held = ops.deepcopy(one)
            done += (ops.assign(one, other), ops.assign(other, held))
        return done
