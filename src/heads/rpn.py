# SPDX-License-Identifier: Apache-2.0
"""The region proposal network (Ren et al., *Faster R-CNN*, NeurIPS 2015, arXiv 1506.01497, section 3.1)."""

from mindspore import nn
from mindspore.common.initializer import Normal

from src.heads.anchored import STD, by_anchor
from src.heads.convolution import biased_convolution


class Rpn(nn.Cell):
    """Whether each anchor holds an object, and how its box differs: small convolutions, shared by all maps.

    Args:
        channels (int): C of the maps.
        anchors (int): A, of each cell of a map.
        std (float): of the initial weights.

    Inputs: a tuple of maps (B, C, h, w).

    Outputs: a tuple of logits (B, h * w * A), and one of deltas (B, h * w * A, 4), map by map.
    """

    def __init__(self, channels, anchors, std=STD):
        super().__init__()
        self.convolution, self.relu = biased_convolution(channels, channels, 3, Normal(std)), nn.ReLU()
        self.objectness = biased_convolution(channels, anchors, 1, Normal(std))
        self.deltas = biased_convolution(channels, anchors * 4, 1, Normal(std))

    def construct(self, maps):
        objectness, deltas = (), ()
        for x in maps:
            x = self.relu(self.convolution(x))
            objectness += (by_anchor(self.objectness(x), 1)[..., 0],)
            deltas += (by_anchor(self.deltas(x), 4),)
        return objectness, deltas


# How mmdetection calls our parameters; see `src.models.published`.
PUBLISHED = (
    (r"^convolution\.", "rpn_head.rpn_conv."),
    (r"^objectness\.", "rpn_head.rpn_cls."),
    (r"^deltas\.", "rpn_head.rpn_reg."),
)
