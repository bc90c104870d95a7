# SPDX-License-Identifier: Apache-2.0
"""A gather whose gradient is a gather."""

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
        # Far fewer nodes to compile than places[m].
        self.unstack = ops.Unstack()

    def construct(self, x, index, places):
        return ops.gather(x, index, 1)

    def bprop(self, x, index, places, out, dout):
        if self.gaps:
            # A sum reads more memory than the loop below, which takes long to compile for a large m.
            dout = ops.concat((dout, ops.zeros_like(dout[:, :1])), 1)
            dx = ops.gather(dout, places.reshape(-1), 1).reshape(x.shape[0], -1, *x.shape[1:]).sum(1)
        else:
            turns = self.unstack(places)
            dx = ops.gather(dout, turns[0], 1)
            for turn in turns[1:]:
                dx = dx + ops.gather(dout, turn, 1)
        return dx, ops.zeros_like(index), ops.zeros_like(places)
