# SPDX-License-Identifier: Apache-2.0
"""What the training of a detector minimises."""

from functools import partial

import mindspore as ms
from mindspore import nn, ops

from src.boxes.anchors import usable_anchors
from src.boxes.coding import encoded
from src.boxes.losses import FocalLoss, smooth_l1_loss
from src.boxes.matching import Matcher
from src.boxes.suppression import taken
from src.training.rcnn_losses import CASCADE, MASK_RCNN, RcnnLoss


class Total(nn.Cell):
    """The sum of what `losses` gives, which may hold parts of the network: their parameters keep their names."""

    def __init__(self, losses):
        super().__init__(auto_prefix=False)
        self.losses = losses

    def construct(self, answers, *truth):
        total = 0
        for loss in self.losses(answers, *truth):
            total = total + loss
        return total


class RetinaLoss(nn.Cell):
    """Focal loss of every anchor's classes, and L1 of the boxes of positive ones, by how many of these a batch has.

    Inputs: what a `RetinaNet` gives in training; then of the ground truth `size` (B, 2), `boxes` (B, M, 4) and `labels`
    (B, M): a class, -1 of a region to be ignored, -2 of room that is not used.

    Outputs: tuple of float32 (): the losses of classes and of boxes.
    """

    def __init__(self):
        super().__init__()
        self.match = Matcher(positive=0.5, negative=0.4, least=0.0)
        self.focal = FocalLoss(gamma=2.0, alpha=0.25)

    def construct(self, answers, size, boxes, labels):
        logits, deltas, anchors = answers
        anchors = anchors.expand_dims(0)
        matched = self.match(anchors, boxes, labels, usable_anchors(anchors[0], size))
        is_positive = matched > 0
        truth = ops.relu(matched - 1)
        classes = ops.where(is_positive, taken(labels, truth), -1).astype(ms.int32)
        weights = is_positive.astype(ms.float32)
        positives = ops.maximum(weights.sum(), 1.0)
        of_classes = self.focal(logits, classes, (matched >= 0).astype(ms.float32), positives)
        targets = encoded(anchors, taken(boxes, truth))
        return of_classes, smooth_l1_loss(deltas, targets, weights, positives, beta=0.0)


# Of each detection head, a network to the Cell of its losses as published, to be added up.
LOSSES = {
    "retinanet": lambda network: RetinaLoss(),
    "maskrcnn": partial(RcnnLoss, recipe=MASK_RCNN),
    "cascade_maskrcnn": partial(RcnnLoss, recipe=CASCADE),
}
