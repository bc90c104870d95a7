# SPDX-License-Identifier: Apache-2.0
"""Which box of the ground truth each anchor or proposal is trained for."""

import mindspore as ms
from mindspore import nn, ops

from src.boxes.overlaps import pairwise_cover, pairwise_iou
from src.ops.alike import alike

IGNORED, BACKGROUND = -1, 0


class Matcher(nn.Cell):
    """By the largest IoU, as mmdetection's `MaxIoUAssigner`.

    A box is positive from an IoU of `positive` with the ground truth on, background below `negative`, and ignored
    between. Where `low_quality`, the boxes that overlap a ground truth most, all of them in a tie, are positive too if
    the IoU is at least `least` and above 0; of two ground truths that claim a box so, the later has it.

    Args:
        ignore_cover (float): boxes of which a region to be ignored covers a larger share are ignored. None: no box is
            for that, as in mmdetection's published recipes.

    Inputs:
        boxes (Tensor): float32 (B, A, 4), or (1, A, 4) the same for all images.
        truth (Tensor): float32 (B, M, 4).
        labels (Tensor): int32 (B, M): a class; -1 a region to be ignored; -2 room not used.
        usable (Tensor): bool (B, A) or (1, A), which boxes there are; the others are ignored.

    Outputs:
        Tensor: int32 (B, A): -1 ignored, 0 background, k + 1 the ground truth k.
    """

    def __init__(self, positive, negative, least, low_quality=True, ignore_cover=None):
        super().__init__()
        self.positive, self.negative, self.least = positive, negative, least
        self.low_quality, self.ignore_cover = low_quality, ignore_cover

    def construct(self, boxes, truth, labels, usable=None):
        boxes, truth = ops.stop_gradient(boxes), ops.stop_gradient(truth)
        if self.ignore_cover is not None:
            regions = truth * ops.equal(labels, -1).astype(ms.float32).expand_dims(2)
            is_free = pairwise_cover(regions, boxes).max(1) <= self.ignore_cover
            usable = is_free if usable is None else ops.logical_and(usable, is_free)
        # Boxes that take no part are made to points, which overlap nothing: the table of all pairs is large.
        if usable is not None:
            boxes, usable = alike(boxes, usable.astype(ms.float32).expand_dims(2))
            boxes = boxes * usable
        iou = pairwise_iou(truth * (labels >= 0).astype(ms.float32).expand_dims(2), boxes)

        best, nearest = ops.max(iou, 1)
        matched = ops.where(best < self.negative, BACKGROUND, IGNORED)
        matched = ops.where(best >= self.positive, nearest.astype(ms.int32) + 1, matched)
        if self.low_quality:
            most = iou.max(2, keepdims=True)
            numbers = ops.arange(1, truth.shape[1] + 1).astype(ms.float32).reshape(1, -1, 1)
            # The number of each ground truth that may claim, 0 of the others.
            may_claim = ops.logical_and(most >= self.least, most > 0).astype(ms.float32)
            most, numbers, _ = alike(most, numbers * may_claim, iou)
            claimed = (ops.equal(iou, most).astype(ms.float32) * numbers).max(1).astype(ms.int32)
            matched = ops.where(claimed > 0, claimed, matched)
        if usable is not None:
            matched = ops.where(usable[..., 0] > 0, matched, IGNORED)
        return ops.stop_gradient(matched.astype(ms.int32))
