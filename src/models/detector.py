# SPDX-License-Identifier: Apache-2.0
"""Detection networks by their names."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from src.heads import feature_pyramid, retina, rpn
from src.heads.anchored import STD
from src.models import features, rcnn
from src.models.anchors import OCTAVE_SCALES, RATIOS
from src.models.detections import USUAL, Selection
from src.models.published import under
from src.models.registry import create_model
from src.models.retinanet import FIRST_MAP, RetinaNet

CHANNELS = 256  # of the pyramid


class Head(NamedTuple):
    """A kind of detector.

    Attributes:
        cell: makes it of a backbone, K, C, the deviation of initial weights, and a `Selection`.
        first (int): of the backbone's maps, that it stands on.
        selection (Selection): the usual one.
        names (tuple): how mmdetection calls its parameters.
        classifiers (dict): how the names of parameters that depend on the number of classes begin, {there: here}.
        classes: `classes(outputs)` is how many a classifier, the first of these, of so many outputs tells apart.
    """

    cell: Callable
    first: int
    selection: Selection
    names: tuple
    classifiers: dict
    classes: Callable


def _rcnn(stages):
    names = (*feature_pyramid.PUBLISHED, under("rpn.", rpn.PUBLISHED), *rcnn.published(stages))
    # The names of all stages end alike.
    classifiers = rcnn.classifiers(stages)
    return Head(partial(rcnn.Rcnn, stages), 0, rcnn.SELECTION, names, classifiers, lambda outputs: outputs - 1)


HEADS = {
    "retinanet": Head(
        RetinaNet,
        FIRST_MAP,
        USUAL,
        (
            *feature_pyramid.PUBLISHED,
            (r"^pyramid\.smaller\.(\d)\.", lambda m: f"neck.fpn_convs.{int(m[1]) + 4 - FIRST_MAP}.conv."),
            under("head.", retina.PUBLISHED),
        ),
        {"bbox_head.retina_cls.": "head.logits."},
        lambda outputs: outputs // (len(OCTAVE_SCALES) * len(RATIOS)),
    ),
    "maskrcnn": _rcnn(rcnn.ONE),
    "cascade_maskrcnn": _rcnn(rcnn.CASCADE),
}


def create_detector(
    head,
    backbone,
    num_classes=80,
    image_size=(800, 1344),
    in_channels=3,
    drop_path_rate=0.0,
    head_channels=0,
    init_std=STD,
    selection=None,
    **options,
):
    """Build a detection network, its weights initialised for training.

    Args:
        head (str): "retinanet", "maskrcnn" or "cascade_maskrcnn".
        backbone (str): one of `list_models()`, as "acmix_pvt_tiny".
        num_classes (int): K.
        image_size (int or pair): that suits the backbone's windows and positions, see `create_model`; the network takes
            images of other sizes too.
        in_channels (int): of the images.
        drop_path_rate (float): stochastic depth of the backbone's last block.
        head_channels (int): of the feature pyramid and what stands on it; 0: 256, as published.
        init_std (float): of the initial weights of what stands on the pyramid. The published 0.01 suits a pretrained
            backbone.
        selection (Selection): which answers the network gives; None: as published.
        options: the backbone's own.

    Returns:
        nn.Cell: a `RetinaNet` or an `Rcnn`.

    Raises:
        ValueError: an unknown head, model or option, or a value that cannot work.
    """
    if head not in HEADS:
        raise ValueError(f"no detection head {head!r}; there are {', '.join(HEADS)}")
    network = create_model(
        backbone, num_classes, image_size, in_channels, drop_path_rate, features_only=True, **options
    )
    kind = HEADS[head]
    return kind.cell(network, num_classes, head_channels or CHANNELS, init_std, selection or kind.selection)


def published_rules(head, backbone, as_authors=False):
    """Return the rules of `src.models.published` for a detector, by the names of mmdetection.

    Args:
        head (str): see `create_detector`.
        backbone: class of the backbone.
        as_authors (bool): of the backbone by the names of its authors' code, which runs in mmdetection as well.

    Raises:
        ValueError: a backbone that OpenMMLab does not have.
    """
    kind = HEADS[head]
    return (*features.published_rules(backbone, as_authors, kind.first), *kind.names)
