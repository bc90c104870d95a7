# SPDX-License-Identifier: Apache-2.0
"""Regions that may hold an object: what a region proposal network found, without what says the same twice."""

from typing import NamedTuple

import mindspore as ms
from mindspore import nn, ops

from src.boxes.coding import clipped, decoded
from src.boxes.suppression import EMPTY, Suppression, best, taken


class ProposalSelection(NamedTuple):
    """Which proposals there are of an image.

    Attributes:
        of_level (int): how many anchors, the best, are looked at of each level of a pyramid.
        iou (float): how much two proposals of a level may overlap.
        count (int): R, how many proposals there are.
    """

    of_level: int = 1000
    iou: float = 0.7
    count: int = 1000


USUAL = ProposalSelection()  # in evaluation


class Proposals(nn.Cell):
    """The proposals among anchors. Without gradient.

    Inputs:
        objectness (tuple): logits (B, A) of each level.
        deltas (tuple): (B, A, 4).
        anchors (tuple): (A, 4).
        size (Tensor): float32 (B, 2), height and width of the picture in each image.

    Outputs:
        boxes float32 (B, R, 4), inside of their pictures, and scores (B, R), falling, `EMPTY` in places without a box.
        R is less where there are fewer anchors.
    """

    def __init__(self, selection=USUAL):
        super().__init__()
        self.selection = selection
        self.suppression = Suppression(selection.iou, selection.count)

    def construct(self, objectness, deltas, anchors, size):
        boxes, scores = (), ()
        for logits, of_boxes, around in zip(objectness, deltas, anchors):
            found, values = self.of_level(ops.stop_gradient(logits), ops.stop_gradient(of_boxes), around, size)
            boxes, scores = (*boxes, found), (*scores, values)
        scores, places = best(ops.concat(scores, 1), self.selection.count)
        return taken(ops.concat(boxes, 1), places), scores

    def of_level(self, logits, deltas, anchors, size):
        """Return the boxes and scores of one level."""
        scores, places = best(ops.sigmoid(logits.astype(ms.float32)), self.selection.of_level)
        boxes = decoded(ops.gather(anchors, places, 0), taken(deltas.astype(ms.float32), places))
        boxes = clipped(boxes, size.astype(ms.float32))
        has_area = ops.logical_and(boxes[..., 2] > boxes[..., 0], boxes[..., 3] > boxes[..., 1])
        scores, places = self.suppression(boxes, ops.where(has_area, scores, EMPTY))
        return taken(boxes, places), scores
