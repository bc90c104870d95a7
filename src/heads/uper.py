# SPDX-License-Identifier: Apache-2.0
"""UperNet (Xiao et al., *Unified Perceptual Parsing*, ECCV 2018, arXiv 1807.10221): pyramid pooling on a pyramid."""

from mindspore import nn, ops

from src.heads.convolution import OF_NORMS, ConvNormRelu
from src.ops.pyramid_convolution import PyramidConvolution
from src.ops.resize import pooled, resized

POOLS = (1, 2, 3, 6)  # sides of the pyramid pooling, in cells over the whole map


class PyramidPooling(nn.Cell):
    """What lies where in the whole map (Zhao et al., CVPR 2017): (B, in, h, w) -> (B, C, h, w)."""

    def __init__(self, in_channels, channels):
        super().__init__()
        self.pools = nn.CellList([ConvNormRelu(in_channels, channels) for _ in POOLS])
        self.bottleneck = ConvNormRelu(in_channels + len(POOLS) * channels, channels, 3)

    def construct(self, x):
        maps = (x,)
        for side, pool in zip(POOLS, self.pools):
            maps += (resized(pool(pooled(x, side)), x.shape[2:]),)
        return self.bottleneck(ops.concat(maps, 1))


class Uper(nn.Cell):
    """Pyramid pooling of the last map, a top-down pyramid of all, joined at the first one's size, and a classifier.

    Args:
        in_channels (sequence): of the four maps, each half as large as the one before.
        classifier: `classifier(channels)` makes the last layer, to K classes.
        channels (int): of every map of the pyramid.

    Inputs: a tuple of maps (B, in, h, w). Outputs: logits (B, K, h, w) of the first map's size.
    """

    def __init__(self, in_channels, classifier, *, channels=512):
        super().__init__()
        *others, last = in_channels
        self.pooling = PyramidPooling(last, channels)
        self.lateral = nn.CellList([ConvNormRelu(count, channels) for count in others])
        self.output = nn.CellList([ConvNormRelu(channels, channels, 3) for _ in others])
        self.fusion = ConvNormRelu(len(in_channels) * channels, channels, 3, PyramidConvolution)
        self.classifier = classifier(channels)

    def construct(self, maps):
        above = self.pooling(maps[-1])
        outputs = (above,)
        for level in range(len(maps) - 2, -1, -1):
            above = self.lateral[level](maps[level]) + resized(above, maps[level].shape[2:])
            outputs = (self.output[level](above), *outputs)
        return self.classifier(self.fusion(outputs))


# How mmsegmentation calls our parameters; see `src.models.published`.
PUBLISHED = (
    *OF_NORMS,
    (r"^pooling\.pools\.(\d)\.", r"decode_head.psp_modules.\1.1."),
    (r"^pooling\.bottleneck\.", "decode_head.bottleneck."),
    (r"^lateral\.(\d)\.", r"decode_head.lateral_convs.\1."),
    (r"^output\.(\d)\.", r"decode_head.fpn_convs.\1."),
    (r"^fusion\.", "decode_head.fpn_bottleneck."),
    (r"^classifier\.linear\.", "decode_head.conv_seg."),
)
