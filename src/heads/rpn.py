# SPDX-License-Identifier: Apache-2.0
"""The region proposal network (Ren et al., *Faster R-CNN*, NeurIPS 2015, arXiv 1506.01497, section 3.1)."""

from mindspore import nn

from src.heads.anchored import STD, by_anchor, convolution


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
        self.convolution, self.relu = convolution(channels, channels, 3, std), nn.ReLU()
        self.objectness = convolution(channels, anchors, 1, std)
        self.deltas = convolution(channels, anchors * 4, 1, std)

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
