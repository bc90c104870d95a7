# SPDX-License-Identifier: Apache-2.0
"""A small head on one map, whose loss helps the layers below it to learn (Zhao et al., CVPR 2017, section 3.3)."""

from mindspore import nn

from src.heads.convolution import OF_NORMS, ConvNormRelu


class Fcn(nn.Cell):
    """(B, in, h, w) -> logits (B, K, h, w); `classifier(channels)` makes its last layer."""

    def __init__(self, in_channels, classifier, *, channels):
        super().__init__()
        self.convolution = ConvNormRelu(in_channels, channels, 3)
        self.classifier = classifier(channels)

    def construct(self, x):
        return self.classifier(self.convolution(x))


# How mmsegmentation calls our parameters; see `src.models.published`.
PUBLISHED = (
    *OF_NORMS,
    (r"^convolution\.", "auxiliary_head.convs.0."),
    (r"^classifier\.linear\.", "auxiliary_head.conv_seg."),
)
