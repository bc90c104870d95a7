# SPDX-License-Identifier: Apache-2.0
"""What the training of Mask R-CNN and Cascade R-CNN minimises: proposals, classes, boxes and masks, stage by stage."""

from collections.abc import Callable
from typing import NamedTuple

import mindspore as ms
from mindspore import nn, ops

from src.boxes.anchors import usable_anchors
from src.boxes.coding import MEANS, decoded, encoded
from src.boxes.losses import giou_loss, smooth_l1_loss
from src.boxes.masks import mask_targets
from src.boxes.matching import Matcher
from src.boxes.suppression import taken
from src.models.proposals import Proposals, ProposalSelection
from src.models.rcnn import of_class, of_training, refined


def of_deltas(deltas, regions, truth, stds, weights, divisor):
    """L1 of deltas (B, P, 4), from `regions` to `truth`."""
    return smooth_l1_loss(deltas, encoded(regions, truth, MEANS, stds), weights, divisor, beta=0.0)


def of_decoded(deltas, regions, truth, stds, weights, divisor):
    """GIoU of the boxes that deltas say, ten times."""
    return 10 * giou_loss(decoded(regions, deltas, MEANS, stds), truth, weights, divisor)


class Recipe(NamedTuple):
    """How an `Rcnn` is trained; the defaults are Mask R-CNN's, as published for PVT and Swin Transformers.

    Attributes:
        selection (ProposalSelection): of the proposals to train with.
        border (float): see `usable_anchors`.
        beta (float): of the smooth L1 loss of proposals.
        positive (tuple): of each stage, the IoU with a ground truth from which a region is of its class.
        low_quality (bool): of the stages, see `Matcher`.
        box_loss: `of_deltas` or `of_decoded`.
        weights (tuple): of the losses of each stage.
    """

    selection: ProposalSelection = ProposalSelection(2000, 0.7, 1000)
    border: float = -1
    beta: float = 0.0
    positive: tuple = (0.5,)
    low_quality: bool = True
    box_loss: Callable = of_deltas
    weights: tuple = (1.0,)


MASK_RCNN = Recipe()
CASCADE = Recipe(
    ProposalSelection(2000, 0.7, 2000),
    border=0,
    beta=1 / 9,
    positive=(0.5, 0.6, 0.7),
    low_quality=False,
    box_loss=of_decoded,
    weights=(1.0, 0.5, 0.25),
)


class ProposalLoss(nn.Cell):
    """Cross entropy of whether anchors hold an object, and smooth L1 of the boxes of those that do, of a sample.

    Args:
        sampler (Sampler): of the network.
        border, beta: see `Recipe`.

    Inputs: objectness (B, A), deltas (B, A, 4) and anchors (A, 4); `size`, `boxes` and `labels` of the ground truth.
    Outputs: tuple of float32 (): both losses, by the number of anchors in the samples of the batch.
    """

    def __init__(self, sampler, border, beta):
        super().__init__(auto_prefix=False)
        self.sampler, self.border, self.beta = sampler, border, beta
        self.match = Matcher(positive=0.7, negative=0.3, least=0.3)

    def construct(self, objectness, deltas, anchors, size, boxes, labels):
        matched = self.match(anchors.expand_dims(0), boxes, labels, usable_anchors(anchors, size, self.border))
        places, matched = self.sampler(matched)
        is_used, is_positive, truth = _told(matched)
        divisor = ops.maximum(is_used.sum(), 1.0)
        of_objects = ops.binary_cross_entropy_with_logits(
            taken(objectness, places), is_positive, is_used, ops.ones_like(is_used), reduction="sum"
        )
        targets = encoded(ops.gather(anchors, places, 0), taken(boxes, truth))
        of_boxes = smooth_l1_loss(taken(deltas, places), targets, is_positive, divisor, self.beta)
        return of_objects / divisor, of_boxes


class StageLoss(nn.Cell):
    """The losses of one stage.

    Args:
        network (Rcnn): whose heads and sampler these are.
        stage (int): its number.
        recipe (Recipe): how it is trained.

    Inputs:
        maps (tuple): (B, C, h, w).
        regions (Tensor): float32 (B, R, 4).
        is_region (Tensor): bool (B, R), which of them there are.
        size, boxes, labels, masks: of the ground truth.

    Outputs:
        tuple: the losses of classes, boxes and masks, weighted, float32 (); and the regions for the next stage: those
        of the sample, refined, and which of them there are.
    """

    def __init__(self, network, stage, recipe):
        super().__init__(auto_prefix=False)
        self.head, self.mask_head, self.sampler = network.boxes[stage], network.masks[stage], network.samplers[stage]
        self.pool, self.pool_for_masks = network.poolings()
        self.stds, self.num_classes = network.stds[stage], network.num_classes
        threshold = recipe.positive[stage]
        self.match = Matcher(threshold, threshold, threshold, recipe.low_quality)
        self.box_loss, self.weight = recipe.box_loss, recipe.weights[stage]

    def construct(self, maps, regions, is_region, size, boxes, labels, masks):
        regions, matched, is_added = self.drawn(regions, is_region, boxes, labels)
        is_used, is_positive, truth = _told(matched)
        count = ops.maximum(is_used.sum(), 1.0)
        logits, deltas = self.head(self.pool(maps, regions), is_used.reshape(-1))
        logits = logits.astype(ms.float32).reshape(*matched.shape, -1)
        deltas = deltas.astype(ms.float32).reshape(*matched.shape, -1, 4)
        classes = ops.where(matched > 0, taken(labels, truth), self.num_classes).astype(ms.int32)
        of_classes = ops.cross_entropy(logits.reshape(-1, self.num_classes + 1), classes.reshape(-1), reduction="none")
        of_classes = (of_classes * is_used.reshape(-1)).sum() / count

        # The positive ones come first.
        most = min(self.sampler.most, matched.shape[1])
        positives, weights, truth = regions[:, :most], is_positive[:, :most], truth[:, :most]
        own = ops.minimum(classes[:, :most], self.num_classes - 1)
        of_boxes = self.box_loss(
            of_class(deltas[:, :most], own), positives, taken(boxes, truth), self.stds, weights, count
        )
        logits_of_masks = self.mask_head(self.pool_for_masks(maps, positives), own.reshape(-1)).astype(ms.float32)
        targets = mask_targets(masks, positives, truth, logits_of_masks.shape[1]).reshape(logits_of_masks.shape)
        of_masks = _of_masks(logits_of_masks, targets, weights.reshape(-1))

        losses = (of_classes * self.weight, of_boxes * self.weight, of_masks * self.weight)
        is_next = ops.logical_and(matched >= 0, ops.logical_not(is_added))
        return losses, self.moved(regions, logits, deltas, classes, size), is_next

    def drawn(self, regions, is_region, boxes, labels):
        """Draw a sample from regions and the ground truth: which, what `Sampler` says of them, and which are truth."""
        matched = self.match(regions, boxes, labels, is_region)
        # Every ground truth is a region too, its own.
        numbers = ops.arange(1, boxes.shape[1] + 1).astype(ms.int32).expand_dims(0)
        own = ops.where(labels >= 0, numbers, -1).astype(ms.int32)
        places, matched = self.sampler(ops.concat((own, matched), 1))
        return taken(ops.concat((boxes, regions), 1), places), matched, places < boxes.shape[1]

    def moved(self, regions, logits, deltas, classes, size):
        """Move regions by the deltas of their classes; those of the background, by those of the likeliest class."""
        _, likeliest = ops.topk(logits[..., :-1], 1)
        classes = ops.where(ops.equal(classes, self.num_classes), likeliest[..., 0].astype(ms.int32), classes)
        return ops.stop_gradient(refined(regions, of_class(deltas, classes), self.stds, size))


class RcnnLoss(nn.Cell):
    """The losses of an `Rcnn`, to be added up.

    Args:
        network (Rcnn): what it gives in training comes in; its heads, which work on regions, are called from here.
        recipe (Recipe): `MASK_RCNN` or `CASCADE`.

    Inputs: what the network gives in training; then of the ground truth `size` (B, 2), `boxes` (B, M, 4), `labels`
    (B, M): a class, -1 of a region to be ignored, -2 of room that is not used; and `masks` uint8 (B, M, H, W).

    Outputs: tuple of float32 (): of proposals the losses of objectness and boxes; of each stage those of classes, boxes
    and masks.
    """

    def __init__(self, network, recipe=MASK_RCNN):
        super().__init__(auto_prefix=False)
        self.levels = len(network.strides)
        self.of_proposals = ProposalLoss(network.proposal_sampler, recipe.border, recipe.beta)
        self.propose = Proposals(recipe.selection)
        stages = [StageLoss(network, stage, recipe) for stage in range(len(network.stds))]
        self.stages = nn.CellList(stages, auto_prefix=False)

    def construct(self, answers, size, boxes, labels, masks):
        maps, objectness, deltas, anchors = of_training(answers, self.levels)
        losses = self.of_proposals(
            ops.concat(objectness, 1), ops.concat(deltas, 1), ops.concat(anchors), size, boxes, labels
        )
        regions, scores = self.propose(objectness, deltas, anchors, size)
        is_region = scores >= 0
        for stage in self.stages:
            more, regions, is_region = stage(maps, regions, is_region, size, boxes, labels, masks)
            losses = (*losses, *more)
        return losses


def _told(matched):
    """Of what a `Sampler` says, (B, R): 1 where a place is used, 1 where positive, and of which ground truth it is."""
    return (matched >= 0).astype(ms.float32), (matched > 0).astype(ms.float32), ops.maximum(matched - 1, 0)


def _of_masks(logits, targets, weights):
    """Mean cross entropy of the pixels (N, h, w) of the masks whose weights (N,) are 1."""
    losses = ops.binary_cross_entropy_with_logits(
        logits, targets, ops.ones_like(logits), ops.ones_like(logits), reduction="none"
    )
    return (losses.mean((1, 2)) * weights).sum() / ops.maximum(weights.sum(), 1.0)
