# SPDX-License-Identifier: Apache-2.0
"""Which boxes a step trains with, where it would be too many or mostly background."""

import mindspore as ms
from mindspore import ops

from src.boxes.suppression import best, taken
from src.ops.draws import Draws


class Sampler(Draws):
    """Draw `count` boxes of each image at random, at most the share `positive` of them positive, the rest background.

    All candidates of a kind are equally likely. Where there are fewer than wanted, all are taken; fewer positives make
    room for background, not the other way round.

    Inputs:
        matched (Tensor): int32 (B, A), see `Matcher`.

    Outputs:
        tuple[Tensor]: places int32 (B, R), of boxes, the positives first; matched int32 (B, R), of each, -1 where no
        box was left to draw. R is `count`, or what A has room for.
    """

    def __init__(self, count, positive):
        super().__init__()
        self.count, self.most = count, int(count * positive)

    def construct(self, matched):
        keys = self.drawn_rows(*matched.shape)
        positives, positive_places = best(ops.where(matched > 0, keys + 1, -1.0), self.most)
        others, other_places = best(ops.where(ops.equal(matched, 0), keys, -1.0), self.count)
        # Positives have keys from 1 on, so they are taken first.
        keys, order = best(ops.concat([positives, others], 1), self.count)
        places = taken(ops.concat([positive_places, other_places], 1), order)
        return places, ops.where(keys >= 0, taken(matched, places), -1).astype(ms.int32)
