# SPDX-License-Identifier: Apache-2.0
"""The maps of a backbone that heads stand on."""

from mindspore import nn

from src.models import pvt, resnet, swin
from src.models.published import under


class OnFeatures(nn.Cell):
    """A network on the maps of a backbone; a subclass calls `features`.

    Args:
        backbone (Backbone): with `features_only`.
        first (int): of the four maps, the first that is used.

    Attributes:
        channels (list): of the maps that are used.
    """

    def __init__(self, backbone, first=0):
        super().__init__()
        self.backbone, self.first = backbone, first
        self.channels = [feature.channels for feature in backbone.feature_info[first:]]
        # A Swin Transformer leaves the norms of its maps to what uses them.
        has_norms = isinstance(backbone, swin.Swin)
        self.norms = nn.CellList([MapNorm(count) for count in self.channels] if has_norms else [])

    def features(self, x):
        """Return the maps (B, C, h, w) of images (B, 3, H, W)."""
        maps = self.backbone(x)[self.first :]
        if len(self.norms) == 0:
            return maps
        normed = ()
        for norm, features in zip(self.norms, maps):
            normed += (norm(features),)
        return normed


class MapNorm(nn.Cell):
    """A layer norm over the channels of a map (B, C, h, w)."""

    def __init__(self, channels):
        super().__init__()
        self.norm = swin.norm(channels)

    def construct(self, x):
        return self.norm(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def published_rules(backbone, as_authors=False, first=0):
    """Return the rules of `src.models.published` for what `OnFeatures` has, by the names of OpenMMLab's projects.

    Args:
        backbone: class of the backbone.
        as_authors (bool): by the names of its authors' code, which runs in those projects as well.
        first (int): see `OnFeatures`.

    Raises:
        ValueError: a backbone that OpenMMLab does not have.
    """
    of_backbone = {
        resnet.ResNet: (resnet.PUBLISHED, resnet.PUBLISHED),
        swin.Swin: (swin.OPENMMLAB, swin.PUBLISHED),
        pvt.PyramidVisionTransformer: (pvt.OPENMMLAB, pvt.PUBLISHED),
    }
    if backbone not in of_backbone:
        raise ValueError(f"OpenMMLab has no {backbone.__name__}")
    return (
        under("backbone.", of_backbone[backbone][as_authors], "backbone."),
        (r"^norms\.(\d)\.norm\.gamma$", lambda m: f"backbone.norm{int(m[1]) + first}.weight"),
        (r"^norms\.(\d)\.norm\.beta$", lambda m: f"backbone.norm{int(m[1]) + first}.bias"),
    )
