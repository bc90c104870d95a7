# SPDX-License-Identifier: Apache-2.0
"""Chance that a run can be resumed with."""

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


class Draws(nn.Cell):
    """A Cell that draws numbers uniform in [0, 1).

    Draw number n is a function of n and of the place in the cycles where this Cell begins, which follows
    `mindspore.set_seed`. So `draws`, the number of draws so far, is all its random state: a run that gets it back
    goes on as if it had never stopped, which MindSpore's own random operators cannot.
    """

    def __init__(self):
        super().__init__()
        self.draws = Parameter(Tensor(0, mstype.int32), requires_grad=False)
        self.cycles = _cycles()
        self.begins = tuple(int(np.random.randint(length)) for length in _LENGTHS)

    def drawn(self, count):
        """Return the next `count` numbers, float32 (count,)."""
        numbers = self.draws + ops.arange(count).astype(mstype.int32)
        uniform = self._sums(numbers, self.begins)
        return ops.depend(uniform, ops.assign_add(self.draws, count))

    def drawn_rows(self, rows, length):
        """Return float32 (rows, length), for two draws a row: they are the places in the cycles where it begins.

        So the count of draws stays small enough for an int32 where a step needs numbers by the hundred thousand.
        """
        begins = self.drawn(2 * rows).reshape(rows, 2, 1)
        begins = [(begins[:, half] * size).astype(mstype.int32) for half, size in enumerate(_LENGTHS)]
        return self._sums(ops.arange(length).astype(mstype.int32), begins)

    def _sums(self, numbers, begins):
        places = [(numbers % length + begin) % length for length, begin in zip(_LENGTHS, begins)]
        first, second = [ops.gather(cycle, place, 0) for cycle, place in zip(self.cycles, places)]
        return (first + second) % 1


def random_state(network):
    """Return the Parameters that count the draws of each `Draws` of `network`, by name."""
    cells = [cell for _, cell in network.cells_and_names() if isinstance(cell, Draws)]
    return {cell.draws.name: cell.draws for cell in cells}
