# SPDX-License-Identifier: Apache-2.0
"""Selection of boxes: the best by score, and of those that overlap the best.

Shapes are fixed: each function keeps its count of places, and the places without a box have score -1.
"""

import math
from functools import cached_property

import mindspore as ms
from mindspore import ops

from src.ops.fused import FusedSuppression, TwoForms

EMPTY = -1.0  # the score of a place without a box, below every score


def best(scores, count):
    """Return the `count` largest of float32 (B, N), falling, ties in their order, and their places, int32 (B, count).

    Of fewer, all of them.
    """
    scores, places = ops.topk(scores, min(count, scores.shape[1]))
    return scores, places.astype(ms.int32)


def taken(values, places):
    """Return (B, N, ...) at int32 (B, R): (B, R, ...)."""
    batch, length = values.shape[:2]
    first = (ops.arange(batch) * length).astype(ms.int32).reshape(batch, 1)
    return ops.gather(values.reshape(batch * length, *values.shape[2:]), places + first, 0)


def best_of_classes(scores, count, threshold):
    """Choose pairs of a box and a class: the `count` of the largest scores above `threshold`.

    Args:
        scores (Tensor): float32 (B, N, K), from 0 to 1.

    Returns:
        tuple[Tensor]: scores float32 (B, R), falling, `EMPTY` where there are no more; boxes int32 (B, R), each the
        number of a box, from 0 to N - 1; classes int32 (B, R). R is `count`, or N * K where that is less.
    """
    batch, length, classes = scores.shape
    if length > count:
        # The boxes of the best pairs are among the `count` best by their best class: far fewer to sort.
        chosen = best(ops.max(scores, 2)[0], count)[1]
        scores, boxes, numbers = best_of_classes(taken(scores, chosen), count, threshold)
        return scores, taken(chosen, boxes), numbers
    scores, places = best(ops.where(scores > threshold, scores, EMPTY).reshape(batch, -1), count)
    boxes, numbers = _divided(places, classes)
    return scores, boxes, numbers


def _divided(numbers, by):
    """Quotients and rests; exporters do not know `%`."""
    quotients = numbers // by
    return quotients, numbers - quotients * by


class Suppression(TwoForms):
    """Non-maximum suppression: of boxes of a class that overlap by more than `iou` the one of the highest score stays.

    Its portable form is MindSpore's operator, which exporters know: 30 times as fast as products of the matrix of all
    overlaps for 1,000 boxes, 39 for 5,000, on two cores. It is documented for up to 2,864 boxes; on CPU more are right.

    Args:
        iou (float): the most that two boxes of a class may overlap.
        count (int): how many boxes stay at most.

    Inputs:
        boxes (Tensor): float32 (B, N, 4), inside of an image.
        scores (Tensor): float32 (B, N), in any order; `EMPTY` in places without a box.
        classes (Tensor): int32 (B, N), from 0 to `num_classes` - 1; None: all are of one class.

    Outputs:
        tuple[Tensor]: scores float32 (B, R), falling, `EMPTY` where no more stayed; places int32 (B, R) of them in the
        inputs. R is `count`, or N where that is less.
    """

    def __init__(self, iou, count, num_classes=1):
        super().__init__()
        self.iou, self.count, self.columns = iou, count, math.ceil(math.sqrt(num_classes))
        self.operator = ops.NMSWithMask(iou)

    @cached_property
    def kernels(self):
        return FusedSuppression(self.iou, self.count)

    def construct(self, boxes, scores, classes=None):
        scores, order = best(scores, scores.shape[1])
        boxes = taken(boxes, order)
        if classes is not None:
            boxes = self.apart(boxes, taken(classes, order))
        stays = self.kernels(boxes, scores) if self.is_fused else self.portable(boxes)
        scores, places = best(ops.where(stays, scores, EMPTY), self.count)
        return scores, taken(order, places)

    def portable(self, boxes):
        # Devices sort by the score or take the order as it is; places of one score must not change their order.
        ranks = ops.arange(boxes.shape[1], 0, -1).astype(ms.float32).expand_dims(1)
        stays = ()  # exporters know no lists
        for image in range(boxes.shape[0]):
            stays += (self.operator(ops.concat((boxes[image], ranks), 1))[2],)
        return ops.stack(stays)

    def apart(self, boxes, classes):
        """Move each class to a place of its own in a square of images, where float32 is finer than in a row of them."""
        side = boxes.max((1, 2), keepdims=True) + 1
        row, column = _divided(classes, self.columns)
        place = ops.stack((column, row, column, row), 2) - self.columns // 2
        return boxes + place.astype(ms.float32) * side
