# SPDX-License-Identifier: Apache-2.0
"""Feature pyramids (Lin et al., CVPR 2017, arXiv 1612.03144): every map learns what the smaller ones have seen."""

from mindspore import nn
from mindspore.common.initializer import XavierUniform

from src.ops.resize import enlarged


class FeaturePyramid(nn.Cell):
    """From the last map up, each is added, enlarged, to the next larger one; all have as many channels then.

    Args:
        in_channels (sequence): of the maps, the largest map first.
        channels (int): C of each output.

    Inputs: a tuple of maps (B, in, h, w). Outputs: a tuple of as many maps (B, C, h, w).
    """

    def __init__(self, in_channels, channels=256):
        super().__init__()
        self.lateral = nn.CellList([_convolution(count, channels, 1) for count in in_channels])
        self.output = nn.CellList([_convolution(channels, channels, 3) for _ in in_channels])

    def construct(self, maps):
        laterals = ()
        for lateral, x in zip(self.lateral, maps):
            laterals += (lateral(x),)
        above, outputs = laterals[-1], (self.output[-1](laterals[-1]),)
        for level in range(len(laterals) - 2, -1, -1):
            above = laterals[level] + enlarged(above, laterals[level].shape[2:])
            outputs = (self.output[level](above), *outputs)
        return outputs


def _convolution(in_channels, out_channels, kernel):
    return nn.Conv2d(
        in_channels,
        out_channels,
        kernel,
        pad_mode="pad",
        padding=kernel // 2,
        has_bias=True,
        weight_init=XavierUniform(),
        bias_init="zeros",
    )
