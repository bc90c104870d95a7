# SPDX-License-Identifier: Apache-2.0
"""What a detector answers: the best boxes of all classes, none of which says what another one says already."""

from typing import NamedTuple

import mindspore as ms
from mindspore import nn, ops

from src.boxes.suppression import Suppression, taken


class Selection(NamedTuple):
    """Which boxes a detector gives.

    Attributes:
        threshold (float): of scores; only what is above it is looked at.
        of_level (int): how many pairs of a box and a class are, of each level of a pyramid.
        iou (float): how much two boxes of a class may overlap.
        count (int): N, how many boxes are given.
    """

    threshold: float = 0.05
    of_level: int = 1000
    iou: float = 0.5
    count: int = 100


USUAL = Selection()


class Detections(nn.Cell):
    """The detections among candidates.

    Inputs:
        boxes (B, R, 4); scores (B, R), -1 in places without a box; classes int32 (B, R).

    Outputs:
        boxes (B, N, 4), scores (B, N), falling, and labels int32 (B, N); 0, 0 and -1 where there are no more.
    """

    def __init__(self, selection, num_classes):
        super().__init__()
        self.suppression = Suppression(selection.iou, selection.count, num_classes)

    def construct(self, boxes, scores, classes):
        scores, places = self.suppression(boxes, scores, classes)
        is_found = scores > 0
        labels = ops.where(is_found, taken(classes, places), -1).astype(ms.int32)
        boxes = taken(boxes, places) * is_found.expand_dims(2).astype(ms.float32)
        return boxes, ops.relu(scores), labels
