# SPDX-License-Identifier: Apache-2.0
"""Semantic segmentation: a backbone's four maps, a head on them, and the class of every pixel."""

from functools import partial
from typing import NamedTuple

from src.heads import fcn, semantic_fpn, uper
from src.heads.pixel_classifier import DROPOUT, INIT_STD, PixelClassifier
from src.models import features
from src.models.features import OnFeatures
from src.models.published import under
from src.models.registry import create_model
from src.ops.resize import resized


class Head(NamedTuple):
    """A head: its Cell, the channels of its pyramid as published, and how mmsegmentation calls its parameters."""

    cell: type
    channels: int
    names: tuple


HEADS = {
    "fpn": Head(semantic_fpn.SemanticFpn, 256, semantic_fpn.PUBLISHED),
    "upernet": Head(uper.Uper, 512, uper.PUBLISHED),
}
AUXILIARY_MAP = 2  # that UperNet's auxiliary head stands on


class Segmenter(OnFeatures):
    """Images to the logits of every pixel.

    Args:
        backbone (Backbone): with `features_only`.
        head (nn.Cell): the four maps to logits.
        auxiliary (nn.Cell): the map `AUXILIARY_MAP` to logits, in training; None: there is none.

    Inputs: images (B, C, H, W), known when the graph is compiled; what the backbone takes.

    Outputs:
        In evaluation logits (B, K, H, W). In training a tuple of logits (B, K, h, w): of the head, at the first map's
        size, and of the auxiliary head, if there is one, at that of its own map.
    """

    def __init__(self, backbone, head, auxiliary=None):
        super().__init__(backbone)
        self.head = head
        self.has_auxiliary = auxiliary is not None
        if self.has_auxiliary:
            self.auxiliary = auxiliary

    def construct(self, x):
        maps = self.features(x)
        logits = self.head(maps)
        if not self.training:
            return resized(logits, x.shape[2:])
        if self.has_auxiliary:
            return logits, self.auxiliary(maps[AUXILIARY_MAP])
        return (logits,)


def create_segmenter(
    head,
    backbone,
    num_classes=150,
    image_size=(512, 512),
    in_channels=3,
    drop_path_rate=0.0,
    dropout=DROPOUT,
    head_channels=0,
    init_std=INIT_STD,
    **options,
):
    """Build a segmentation network, its weights initialised for training.

    Args:
        head (str): "fpn", Semantic FPN, or "upernet", UperNet with an auxiliary head.
        backbone (str): one of `list_models()`, as "acmix_pvt_tiny".
        num_classes (int): K.
        image_size (int or pair): that suits the backbone's windows and positions, see `create_model`; the network takes
            images of other sizes too.
        in_channels (int): of the images.
        drop_path_rate (float): stochastic depth of the backbone's last block.
        dropout (float): share of the channels that training leaves out before each classifier.
        head_channels (int): of the head's pyramid; 0: as published, 256 of "fpn", 512 of "upernet".
        init_std (float): of the classifiers' initial weights, see `PixelClassifier`.
        options: the backbone's own.

    Returns:
        Segmenter.

    Raises:
        ValueError: an unknown head, model or option, or a value that cannot work.
    """
    if head not in HEADS:
        raise ValueError(f"no segmentation head {head!r}; there are {', '.join(HEADS)}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be in [0, 1), got {dropout!r}")
    network = create_model(
        backbone, num_classes, image_size, in_channels, drop_path_rate, features_only=True, **options
    )
    channels = [feature.channels for feature in network.feature_info]
    width = head_channels or HEADS[head].channels
    classifier = partial(PixelClassifier, num_classes=num_classes, dropout=dropout, init_std=init_std)
    auxiliary = fcn.Fcn(channels[AUXILIARY_MAP], classifier, channels=width // 2) if head == "upernet" else None
    return Segmenter(network, HEADS[head].cell(channels, classifier, channels=width), auxiliary)


def published_rules(head, backbone, as_authors=False):
    """Return the rules of `src.models.published` for a `Segmenter`, by the names of mmsegmentation.

    Args:
        head (str): see `create_segmenter`.
        backbone: class of the backbone.
        as_authors (bool): of the backbone by the names of its authors' code, which runs in mmsegmentation as well.

    Raises:
        ValueError: a backbone that OpenMMLab does not have.
    """
    return (
        *features.published_rules(backbone, as_authors),
        under("head.", HEADS[head].names),
        under("auxiliary.", fcn.PUBLISHED),
    )
