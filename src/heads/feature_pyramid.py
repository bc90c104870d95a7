# SPDX-License-Identifier: Apache-2.0
"""Feature pyramids (Lin et al., CVPR 2017, arXiv 1612.03144): every map learns what the smaller ones have seen."""

from mindspore import nn
from mindspore.common.initializer import XavierUniform

from src.heads.convolution import biased_convolution
from src.ops.resize import enlarged


class FeaturePyramid(nn.Cell):
    """From the last map up, each is added, enlarged, to the next larger one; all have as many channels then.

    Args:
        in_channels (sequence): of the maps, the largest map first.
        channels (int): C of each output.
        smaller (int): how many maps follow, each half the size of the one before: 3x3 convolutions of stride 2, the
            first of them of the last map that comes in (Lin et al., *Focal Loss*, ICCV 2017).

    Inputs: a tuple of maps (B, in, h, w). Outputs: a tuple of as many maps (B, C, h, w), and the smaller ones.
    """

    def __init__(self, in_channels, channels=256, smaller=0):
        super().__init__()
        self.lateral = nn.CellList([biased_convolution(count, channels, 1, XavierUniform()) for count in in_channels])
        self.output = nn.CellList([biased_convolution(channels, channels, 3, XavierUniform()) for _ in in_channels])
        counts = [in_channels[-1], *[channels] * smaller][:smaller]
        self.smaller = nn.CellList(
            [biased_convolution(count, channels, 3, XavierUniform(), stride=2) for count in counts]
        )

    def construct(self, maps):
        laterals = ()
        for lateral, x in zip(self.lateral, maps):
            laterals += (lateral(x),)
        above, outputs = laterals[-1], (self.output[-1](laterals[-1]),)
        for level in range(len(laterals) - 2, -1, -1):
            above = laterals[level] + enlarged(above, laterals[level].shape[2:])
            outputs = (self.output[level](above), *outputs)
        last = maps[-1]
        for smaller in self.smaller:
            last = smaller(last)
            outputs += (last,)
        return outputs


# How OpenMMLab's projects call our parameters, in a Cell that has the pyramid as `pyramid`; see `src.models.published`.
PUBLISHED = (
    (r"^pyramid\.lateral\.(\d)\.", r"neck.lateral_convs.\1.conv."),
    (r"^pyramid\.output\.(\d)\.", r"neck.fpn_convs.\1.conv."),
)
