# SPDX-License-Identifier: Apache-2.0
"""Stochastic depth."""

from functools import cache

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype

# Two cycles of numbers without a common divisor: their sums repeat after the product of the lengths, 4.3e9 draws.
_LENGTHS = 65521, 65519


@cache
def _cycles():
    """The numbers, uniform in [0, 1); all Cells share them."""
    return tuple(Tensor(np.random.default_rng(length).random(length, np.float32)) for length in _LENGTHS)


class DropPath(nn.Cell):
    """In training, replace the residual branch of an image by zeros with probability `rate`, and scale up the others.

    Huang et al., *Deep Networks with Stochastic Depth*, ECCV 2016. Inputs and outputs: (B, ...). Where each row is a
    channel, it is dropout of channels.

    Draw number n is a function of n and of the place in the cycles where this Cell begins, which follows
    `mindspore.set_seed`. So `draws`, the number of draws so far, is all its random state: a run that gets it back
    goes on as if it had never stopped, which MindSpore's own random operators cannot.
    """

    def __init__(self, rate):
        super().__init__()
        self.rate = rate
        self.draws = Parameter(Tensor(0, mstype.int32), requires_grad=False)
        self.cycles = _cycles()
        self.begins = tuple(int(np.random.randint(length)) for length in _LENGTHS)

    def construct(self, x):
        if not self.training:
            return x
        numbers = self.draws + ops.arange(x.shape[0]).astype(mstype.int32)
        places = [(numbers % length + begin) % length for length, begin in zip(_LENGTHS, self.begins)]
        first, second = [ops.gather(cycle, place, 0) for cycle, place in zip(self.cycles, places)]
        uniform = (first + second) % 1
        kept = (uniform >= self.rate).astype(x.dtype) / (1 - self.rate)
        x = x * kept.reshape((-1,) + (1,) * (x.ndim - 1))
        return ops.depend(x, ops.assign_add(self.draws, x.shape[0]))


def random_state(network):
    """Return the Parameters that count the draws of each `DropPath` of `network`, by name."""
    cells = [cell for _, cell in network.cells_and_names() if isinstance(cell, DropPath)]
    return {cell.draws.name: cell.draws for cell in cells}


def drop_path_rates(last, depth):
    """The rate of each of `depth` blocks, growing linearly from 0 to `last`."""
    return [last * block / max(depth - 1, 1) for block in range(depth)]
