# SPDX-License-Identifier: Apache-2.0
"""What a region shows and how its box differs: the second stage of Faster R-CNN (Ren et al., arXiv 1506.01497)."""

from mindspore import nn
from mindspore.common.initializer import Normal, XavierUniform

from src.heads.convolution import OF_NORMS, ConvNormRelu
from src.heads.used_norm import UsedBatchNorm2d

SIDE = 7  # of what is pooled of each region
HIDDEN = 1024
LOGITS_STD, DELTAS_STD = 0.01, 0.001


class BoxHead(nn.Cell):
    """Regions, pooled, to their classes and boxes.

    Args:
        channels (int): C of the maps.
        num_classes (int): K.
        convolutions (int): 3x3, each with a batch norm, that come first.
        linear (int): layers of `HIDDEN` numbers that follow.

    Inputs:
        x (Tensor): (N, C, 7, 7).
        used (Tensor): float32 (N,): 1, or 0 of places that are not used, which no batch norm looks at. None: all are.

    Outputs: logits (N, K + 1), the last of the background, and deltas (N, K, 4), for each class its own.
    """

    def __init__(self, channels, num_classes, convolutions=0, linear=2):
        super().__init__()
        blocks = [ConvNormRelu(channels, channels, 3, norm=UsedBatchNorm2d) for _ in range(convolutions)]
        self.convolutions = nn.CellList(blocks)
        counts = [channels * SIDE * SIDE, *[HIDDEN] * linear]
        layers = [_linear(count, HIDDEN, XavierUniform()) for count in counts[:linear]]
        self.linear, self.relu = nn.CellList(layers), nn.ReLU()
        self.logits = _linear(counts[-1], num_classes + 1, Normal(LOGITS_STD))
        self.deltas = _linear(counts[-1], num_classes * 4, Normal(DELTAS_STD))

    def construct(self, x, used=None):
        for block in self.convolutions:
            x = block(x) if used is None else block(x, used)
        x = x.reshape(x.shape[0], -1)
        for layer in self.linear:
            x = self.relu(layer(x))
        return self.logits(x), self.deltas(x).reshape(x.shape[0], -1, 4)


def _linear(inputs, outputs, weights):
    return nn.Dense(inputs, outputs, weight_init=weights, bias_init="zeros")


# How mmdetection calls our parameters; see `src.models.published`.
PUBLISHED = (
    *OF_NORMS,
    (r"^convolutions\.", "shared_convs."),
    (r"^linear\.", "shared_fcs."),
    (r"^logits\.", "fc_cls."),
    (r"^deltas\.", "fc_reg."),
)
