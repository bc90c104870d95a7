# SPDX-License-Identifier: Apache-2.0
"""Stochastic depth."""

from src.ops.draws import Draws


class DropPath(Draws):
    """In training, replace the residual branch of an image by zeros with probability `rate`, and scale up the others.

    Huang et al., *Deep Networks with Stochastic Depth*, ECCV 2016. Inputs and outputs: (B, ...). Where each row is a
    channel, it is dropout of channels.
    """

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def construct(self, x):
        if not self.training:
            return x
        kept = (self.drawn(x.shape[0]) >= self.rate).astype(x.dtype) / (1 - self.rate)
        return x * kept.reshape((-1,) + (1,) * (x.ndim - 1))


def drop_path_rates(last, depth):
    """The rate of each of `depth` blocks, growing linearly from 0 to `last`."""
    return [last * block / max(depth - 1, 1) for block in range(depth)]
