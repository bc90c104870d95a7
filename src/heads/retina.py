# SPDX-License-Identifier: Apache-2.0
"""RetinaNet's head (Lin et al., *Focal Loss for Dense Object Detection*, ICCV 2017, arXiv 1708.02002, section 4)."""

import math

from mindspore import nn
from mindspore.common.initializer import Normal

from src.heads.anchored import STD, by_anchor
from src.heads.convolution import biased_convolution

CONVOLUTIONS = 4
PRIOR = 0.01  # that an anchor holds an object of a class, before anything is learned


class RetinaHead(nn.Cell):
    """What class each anchor is of, and how its box differs: two towers of convolutions, shared by all maps.

    Args:
        channels (int): C of the maps, and of the towers.
        anchors (int): A, of each cell of a map.
        num_classes (int): K.
        std (float): of the initial weights.

    Inputs: a tuple of maps (B, C, h, w).

    Outputs: a tuple of logits (B, h * w * A, K), and one of deltas (B, h * w * A, 4), map by map.
    """

    def __init__(self, channels, anchors, num_classes, std=STD):
        super().__init__()
        self.classes, self.boxes = _tower(channels, std), _tower(channels, std)
        self.logits = biased_convolution(channels, anchors * num_classes, 3, Normal(std), bias=-math.log(1 / PRIOR - 1))
        self.deltas = biased_convolution(channels, anchors * 4, 3, Normal(std))
        self.num_classes = num_classes

    def construct(self, maps):
        logits, deltas = (), ()
        for x in maps:
            logits += (by_anchor(self.logits(self.classes(x)), self.num_classes),)
            deltas += (by_anchor(self.deltas(self.boxes(x)), 4),)
        return logits, deltas


def _tower(channels, std):
    layers = []
    for _ in range(CONVOLUTIONS):
        layers += [biased_convolution(channels, channels, 3, Normal(std)), nn.ReLU()]
    return nn.SequentialCell(*layers)


# How mmdetection calls our parameters; see `src.models.published`.
PUBLISHED = (
    (r"^classes\.(\d)\.", lambda m: f"bbox_head.cls_convs.{int(m[1]) // 2}.conv."),
    (r"^boxes\.(\d)\.", lambda m: f"bbox_head.reg_convs.{int(m[1]) // 2}.conv."),
    (r"^logits\.", "bbox_head.retina_cls."),
    (r"^deltas\.", "bbox_head.retina_reg."),
)
