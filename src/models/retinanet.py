# SPDX-License-Identifier: Apache-2.0
"""RetinaNet (Lin et al., *Focal Loss for Dense Object Detection*, ICCV 2017): every anchor judged at once."""

import math

from mindspore import ops

from src.boxes.coding import clipped, decoded
from src.boxes.suppression import best_of_classes, taken
from src.heads.anchored import STD
from src.heads.feature_pyramid import FeaturePyramid
from src.heads.retina import RetinaHead
from src.models.anchors import OCTAVE_SCALES, RATIOS, level_anchors, whole_size
from src.models.detections import USUAL, Detections
from src.models.features import OnFeatures

FIRST_MAP, SMALLER_MAPS = 1, 2


class RetinaNet(OnFeatures):
    """Images to detections.

    Args:
        backbone (Backbone): with `features_only`.
        num_classes (int): K.
        channels (int): of the pyramid.
        init_std (float): of the head's initial weights.
        selection (Selection): which answers are given.

    Inputs:
        image (Tensor): (B, 3, H, W), known when the graph is compiled.
        size (Tensor): float32 (B, 2), the height and width of the picture in each; None: it fills the image.

    Outputs:
        In evaluation boxes (B, N, 4), scores (B, N) and labels (B, N), see `Detections`. In training logits (B, A, K)
        and deltas (B, A, 4) of all A anchors, and these, (A, 4).
    """

    def __init__(self, backbone, num_classes, channels, init_std=STD, selection=USUAL):
        super().__init__(backbone, FIRST_MAP)
        first = backbone.feature_info[FIRST_MAP].stride
        self.strides = tuple(first << level for level in range(len(self.channels) + SMALLER_MAPS))
        self.pyramid = FeaturePyramid(self.channels, channels, SMALLER_MAPS)
        self.head = RetinaHead(channels, len(OCTAVE_SCALES) * len(RATIOS), num_classes, init_std)
        self.selection = selection
        self.geometry = (Detections(selection, num_classes),)  # no Cell of the tree, so no precision rounds the boxes

    def construct(self, image, size=None):
        logits, deltas, anchors = self.by_level(image)
        if self.training:
            return ops.concat(logits, 1), ops.concat(deltas, 1), ops.concat(anchors)
        return self.detect(logits, deltas, anchors, whole_size(image.shape) if size is None else size)

    def by_level(self, image):
        """Return logits, deltas and anchors, each level by level."""
        maps = self.pyramid(self.features(image))
        logits, deltas = self.head(maps)
        return logits, deltas, level_anchors(self.strides, [x.shape[2:] for x in maps], OCTAVE_SCALES, RATIOS)

    def candidates(self, image):
        """Return what detections are chosen of: the boxes of all anchors, (B, A, 4), and scores (B, A, K)."""
        logits, deltas, anchors = self.by_level(image)
        boxes = decoded(ops.concat(anchors), ops.concat(deltas, 1).astype("float32"))
        return clipped(boxes, whole_size(image.shape)), ops.sigmoid(ops.concat(logits, 1).astype("float32"))

    def levels(self, size):
        """Return how many anchors each level has of images of `size` (H, W)."""
        cells = [math.prod(-(-side // stride) for side in size) for stride in self.strides]
        return [len(OCTAVE_SCALES) * len(RATIOS) * count for count in cells]

    def detect(self, logits, deltas, anchors, size):
        """Return the detections of logits (B, A, K), deltas (B, A, 4) and anchors (A, 4) of each level."""
        chosen, moved, scores, classes = (), (), (), ()
        for of_classes, of_boxes, around in zip(logits, deltas, anchors):
            probabilities = ops.sigmoid(of_classes.astype("float32"))
            best, places, labels = best_of_classes(probabilities, self.selection.of_level, self.selection.threshold)
            scores, classes = (*scores, best), (*classes, labels)
            chosen = (*chosen, ops.gather(around, places, 0))
            moved = (*moved, taken(of_boxes.astype("float32"), places))
        boxes = clipped(decoded(ops.concat(chosen, 1), ops.concat(moved, 1)), size.astype("float32"))
        (detections,) = self.geometry
        return detections(boxes, ops.concat(scores, 1), ops.concat(classes, 1))
