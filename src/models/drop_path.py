# SPDX-License-Identifier: Apache-2.0
"""Stochastic depth."""

from mindspore import nn, ops


class DropPath(nn.Cell):
    """In training, replace the residual branch of an image by zeros with probability `rate`, and scale up the others.

    Huang et al., *Deep Networks with Stochastic Depth*, ECCV 2016. Inputs and outputs: (B, ...).
    """

    def __init__(self, rate):
        super().__init__()
        self.dropout = nn.Dropout(p=rate)

    def construct(self, x):
        return x * self.dropout(ops.ones((x.shape[0],) + (1,) * (x.ndim - 1), x.dtype))


def drop_path_rates(last, depth):
    """The rate of each of `depth` blocks, growing linearly from 0 to `last`."""
    return [last * block / max(depth - 1, 1) for block in range(depth)]
