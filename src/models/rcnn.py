# SPDX-License-Identifier: Apache-2.0
"""Mask R-CNN (He et al., ICCV 2017, arXiv 1703.06870) and Cascade R-CNN with masks (Cai et al., arXiv 1906.09756).

Regions are proposed, each is pooled and judged, in a cascade by stages that each see the boxes of the one before, and
what was found is pooled once more for its mask. Cascade R-CNN is this with more stages.
"""

from typing import NamedTuple

import mindspore as ms
from mindspore import nn, ops

from src.boxes.coding import MEANS, clipped, decoded
from src.boxes.roi_align import RoiAlign
from src.boxes.sampling import Sampler
from src.boxes.suppression import EMPTY, best_of_classes, taken
from src.heads import box_head, mask_head
from src.heads.anchored import STD
from src.heads.box_head import BoxHead
from src.heads.feature_pyramid import FeaturePyramid
from src.heads.mask_head import MaskHead
from src.heads.rpn import Rpn
from src.models.anchors import PROPOSAL_SCALES, RATIOS, level_anchors, whole_size
from src.models.detections import Detections, Selection
from src.models.features import OnFeatures
from src.models.proposals import Proposals
from src.models.published import under

# The pairs of a box and a class that answers are chosen from, where 100 are asked for. 2,000 are enough unless each
# answer hides 20 other pairs; and more than 2,864 are too many for the suppression of some devices.
SELECTION = Selection(of_level=2000)


class Stages(NamedTuple):
    """What the stages after the proposals are, as published.

    Attributes:
        stds (tuple): of each stage, the unit of its four deltas.
        convolutions, linear (int): layers of each box head.
    """

    stds: tuple
    convolutions: int
    linear: int


ONE = Stages(((0.1, 0.1, 0.2, 0.2),), convolutions=0, linear=2)
CASCADE = Stages(((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067)), convolutions=4, linear=1)


class Rcnn(OnFeatures):
    """Images to detections and their masks.

    Args:
        stages (Stages): what follows the proposals.
        backbone (Backbone): with `features_only`.
        num_classes (int): K.
        channels (int): C of the pyramid.
        init_std (float): of the initial weights of what proposes regions.
        selection (Selection): which answers are given; `of_level` of it counts pairs of all levels.

    Attributes:
        strides (tuple): of the five maps of the pyramid; all but the last one are pooled.
        geometry (tuple): what has no weights and works on boxes in evaluation: proposals, the pooling of regions and of
            masks, detections. No Cell of the tree, so no precision rounds the boxes.
        proposal_sampler, samplers: of training, which draw from anchors and, stage by stage, from regions.

    Inputs:
        image (Tensor): (B, 3, H, W), known when the graph is compiled.
        size (Tensor): float32 (B, 2), the height and width of the picture in each; None: it fills the image.

    Outputs:
        In evaluation boxes (B, N, 4), scores (B, N) and labels (B, N), see `Detections`, and masks (B, N, 28, 28), the
        probabilities that points of each box, evenly spaced, are of the thing in it. In training a flat tuple, see
        `of_training`.
    """

    def __init__(self, stages, backbone, num_classes, channels, init_std=STD, selection=SELECTION):
        super().__init__(backbone)
        self.stds, self.num_classes, self.selection = stages.stds, num_classes, selection
        first = backbone.feature_info[0].stride
        self.strides = tuple(first << level for level in range(len(self.channels) + 1))
        self.pyramid = FeaturePyramid(self.channels, channels)
        self.rpn = Rpn(channels, len(PROPOSAL_SCALES) * len(RATIOS), init_std)
        heads = [BoxHead(channels, num_classes, stages.convolutions, stages.linear) for _ in stages.stds]
        self.boxes = nn.CellList(heads)
        self.masks = nn.CellList([MaskHead(channels, num_classes) for _ in stages.stds])
        self.proposal_sampler = Sampler(256, positive=0.5)
        self.samplers = nn.CellList([Sampler(512, positive=0.25) for _ in stages.stds])
        self.geometry = (Proposals(), *self.poolings(), Detections(selection, num_classes))

    def poolings(self):
        """Return what pools regions, and what pools boxes for their masks."""
        return RoiAlign(box_head.SIDE, self.strides[:-1]), RoiAlign(mask_head.POOLED, self.strides[:-1])

    def construct(self, image, size=None):
        maps = self.pyramid(self.features(image))
        maps = (*maps, maps[-1][:, :, ::2, ::2])
        objectness, deltas = self.rpn(maps)
        anchors = level_anchors(self.strides, [x.shape[2:] for x in maps], PROPOSAL_SCALES, RATIOS)
        if self.training:
            return (*maps[:-1], *objectness, *deltas, *anchors)
        size = (whole_size(image.shape) if size is None else size).astype(ms.float32)
        return self.detect(maps[:-1], objectness, deltas, anchors, size)

    def detect(self, maps, objectness, deltas, anchors, size):
        """Return boxes, scores, labels and masks."""
        propose, pool, pool_for_masks, detections = self.geometry
        regions, values = propose(objectness, deltas, anchors, size)
        total = 0
        for stage in range(len(self.stds)):
            logits, deltas = self.boxes[stage](pool(maps, regions))
            logits = logits.astype(ms.float32).reshape(*values.shape, -1)
            deltas = deltas.astype(ms.float32).reshape(*values.shape, -1, 4)
            total = total + logits
            if stage < len(self.stds) - 1:
                _, likeliest = ops.topk(logits[..., :-1], 1)
                chosen = of_class(deltas, likeliest[..., 0].astype(ms.int32))
                regions = refined(regions, chosen, self.stds[stage], size)
        is_region = (values > EMPTY).astype(ms.float32).expand_dims(2)
        probabilities = ops.softmax(total / len(self.stds), -1)[..., :-1] * is_region
        scores, places, labels = best_of_classes(probabilities, self.selection.of_level, self.selection.threshold)
        boxes = refined(taken(regions, places), of_class(taken(deltas, places), labels), self.stds[-1], size)
        boxes, scores, labels = detections(boxes, scores, labels)
        return boxes, scores, labels, self.masks_of(pool_for_masks(maps, boxes), labels)

    def masks_of(self, pooled, labels):
        """Return the probabilities of masks (B, N, h, w), the mean of what the stages say."""
        classes = ops.maximum(labels, 0).reshape(-1)
        total = 0
        for head in self.masks:
            total = total + ops.sigmoid(head(pooled, classes).astype(ms.float32))
        return (total / len(self.stds)).reshape(*labels.shape, *total.shape[1:])


def of_training(answers, levels):
    """Tell apart what an `Rcnn` gives in training.

    Args:
        levels (int): how many maps its pyramid has.

    Returns:
        tuple of tuples: maps (B, C, h, w), all but the last; then of each level the logits of objectness (B, A), the
        deltas (B, A, 4) and the anchors (A, 4).
    """
    maps, rest = answers[: levels - 1], answers[levels - 1 :]
    return maps, rest[:levels], rest[levels : 2 * levels], rest[2 * levels :]


def of_class(deltas, classes):
    """Return of deltas (B, R, K, 4) those of one class each, int32 (B, R): (B, R, 4)."""
    batch, count, kinds, _ = deltas.shape
    places = (ops.arange(count) * kinds).astype(ms.int32) + classes
    return taken(deltas.reshape(batch, count * kinds, 4), places)


def refined(regions, deltas, stds, size):
    """Return regions (B, R, 4) moved by deltas (B, R, 4), inside of their pictures."""
    return clipped(decoded(regions, deltas, MEANS, stds), size)


def published(stages):
    """Return the names, see `src.models.published`, of the heads of all stages."""
    rules = ()
    for stage, theirs in _stages(stages):
        rules += (
            under(f"boxes.{stage}.", box_head.PUBLISHED, f"roi_head.bbox_head.{theirs}"),
            under(f"masks.{stage}.", mask_head.PUBLISHED, f"roi_head.mask_head.{theirs}"),
        )
    return rules


def classifiers(stages):
    """Return how the names of what depends on the number of classes begin, {theirs: ours}, a classifier first."""
    names = {}
    for stage, theirs in _stages(stages):
        names |= {
            f"roi_head.bbox_head.{theirs}fc_cls.": f"boxes.{stage}.logits.",
            f"roi_head.bbox_head.{theirs}fc_reg.": f"boxes.{stage}.deltas.",
            f"roi_head.mask_head.{theirs}conv_logits.": f"masks.{stage}.logits.",
        }
    return names


def _stages(stages):
    """Return (number, how mmdetection's names of it go on) of each stage; of a single one they do not count."""
    count = len(stages.stds)
    return [(stage, f"{stage}." if count > 1 else "") for stage in range(count)]
