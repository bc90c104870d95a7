# SPDX-License-Identifier: Apache-2.0
"""Semantic FPN (Kirillov et al., *Panoptic Feature Pyramid Networks*, CVPR 2019, arXiv 1901.02446, section 3.2)."""

from mindspore import nn

from src.heads import feature_pyramid
from src.heads.convolution import OF_NORMS, ConvNormRelu
from src.ops.resize import resized


class Level(nn.Cell):
    """One map brought to the size of the first: convolutions, each followed by a doubling. `doublings` 0: one."""

    def __init__(self, in_channels, channels, doublings):
        super().__init__()
        self.doublings = doublings
        counts = [in_channels] + [channels] * max(doublings - 1, 0)
        self.convolutions = nn.CellList([ConvNormRelu(count, channels, 3) for count in counts])

    def construct(self, x):
        for convolution in self.convolutions:
            x = convolution(x)
            if self.doublings > 0:
                x = resized(x, (2 * x.shape[2], 2 * x.shape[3]))
        return x


class SemanticFpn(nn.Cell):
    """A feature pyramid, its maps brought to the size of the first one and added, and a classifier of each pixel.

    Args:
        in_channels (sequence): of the four maps, each half as large as the one before.
        classifier: `classifier(channels)` makes the last layer, to K classes.
        channels (int): of the feature pyramid; what is added has half of them.

    Inputs: a tuple of maps (B, in, h, w). Outputs: logits (B, K, h, w) of the first map's size.
    """

    def __init__(self, in_channels, classifier, *, channels=256):
        super().__init__()
        self.pyramid = feature_pyramid.FeaturePyramid(in_channels, channels)
        self.levels = nn.CellList([Level(channels, channels // 2, level) for level in range(len(in_channels))])
        self.classifier = classifier(channels // 2)

    def construct(self, maps):
        maps = self.pyramid(maps)
        out = self.levels[0](maps[0])
        for level in range(1, len(maps)):
            out = out + resized(self.levels[level](maps[level]), out.shape[2:])
        return self.classifier(out)


# How mmsegmentation calls our parameters; see `src.models.published`.
PUBLISHED = (
    *OF_NORMS,
    *feature_pyramid.PUBLISHED,
    (r"^levels\.(\d)\.convolutions\.(\d)\.", lambda m: f"decode_head.scale_heads.{m[1]}.{2 * int(m[2])}."),
    (r"^classifier\.linear\.", "decode_head.conv_seg."),
)
