# SPDX-License-Identifier: Apache-2.0
"""A gather whose gradient is a gather."""

import mindspore as ms
from mindspore import nn, ops


class GatherRows(nn.Cell):
    """Copy rows of x (M, P, ...) by `index` (K,) into (M, K, ...), with an exact gradient that only gathers.

    The usual gradient of a gather scatters K rows; here `places` (m, P), the inverse of `index`, lets each of the P
    rows add up its own m copies, which is several times faster where scatters are slow.

    Args:
        gaps (bool): for rows that have fewer copies than others, where K in `places` stands for none.
    """

    def __init__(self, gaps=False):
        super().__init__()
        self.gaps = gaps
        # On CPU a quarter of the time of one gather and a sum. Elsewhere those are 2 kernels to launch in place of
        # 2 m - 1; and each copy more takes longer to compile.
        self.sums_one_by_one = ms.get_context("device_target") == "CPU" and not gaps
        # Far fewer nodes to compile than places[m].
        self.unstack = ops.Unstack()

    def construct(self, x, index, places):
        return ops.gather(x, index, 1)

    def bprop(self, x, index, places, out, dout):
        if self.gaps:
            dout = ops.concat((dout, ops.zeros_like(dout[:, :1])), 1)
        if self.sums_one_by_one:
            turns = self.unstack(places)
            dx = ops.gather(dout, turns[0], 1)
            for turn in turns[1:]:
                dx = dx + ops.gather(dout, turn, 1)
        else:
            copies = ops.gather(dout, places.reshape(-1), 1)
            dx = copies.reshape(x.shape[0], -1, *x.shape[1:]).sum(1) if places.shape[0] > 1 else copies
        return dx, ops.zeros_like(index), ops.zeros_like(places)
