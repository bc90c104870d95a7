# SPDX-License-Identifier: Apache-2.0
"""What the machine can do at most: multiply-adds and copied bytes a second, by operators of the same threads."""

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from src.measure.operators import profile

MATMUL_SIDE = 1024
COPIED_NUMBERS = 1 << 24  # 64 MB, beyond any cache
RUNS = 9


def matmul_rate():
    """Return the multiply-adds a second of a float32 matrix product of side 1024."""
    matrix = ms.Tensor(np.ones((MATMUL_SIDE, MATMUL_SIDE), np.float32))
    return MATMUL_SIDE**3 / _seconds(_Once(ops.MatMul()), matrix, matrix)


def copy_rate():
    """Return the bytes a second that a copy reads; it writes as many."""
    numbers = ms.Tensor(np.ones(COPIED_NUMBERS, np.float32))
    return numbers.nbytes / _seconds(_Once(ops.Neg()), numbers)


class _Once(nn.Cell):
    def __init__(self, operator):
        super().__init__()
        self.operator = operator

    def construct(self, *inputs):
        return self.operator(*inputs)


def _seconds(cell, *inputs):
    """The time of the operator itself, without its dispatch."""
    for _ in range(RUNS):
        cell(*inputs)
    (operator,) = profile(lambda: cell(*inputs), RUNS)
    return operator.ms / 1e3
