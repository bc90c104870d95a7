# SPDX-License-Identifier: Apache-2.0
"""The last layer of every segmentation head: a linear classifier of each pixel."""

from mindspore import nn
from mindspore.common.initializer import Normal

from src.ops.drop_path import DropPath

DROPOUT = 0.1  # of whole channels, in training
INIT_STD = 0.01


class PixelClassifier(nn.Cell):
    """(B, C, H, W) -> logits (B, K, H, W).

    Args:
        channels (int): C.
        num_classes (int): K.
        dropout (float): share of the channels that training leaves out.
        init_std (float): of its initial weights. The published 0.01 suits a pretrained backbone; one that is not learns
            hardly anything below so small weights.
    """

    def __init__(self, channels, num_classes, dropout=DROPOUT, init_std=INIT_STD):
        super().__init__()
        self.dropout = DropPath(dropout) if dropout else nn.Identity()
        self.linear = nn.Conv2d(
            channels, num_classes, 1, has_bias=True, weight_init=Normal(init_std), bias_init="zeros"
        )

    def construct(self, x):
        # Of each channel of each image by itself; not `nn.Dropout2d`, whose random state no resumed run can have.
        rows = self.dropout(x.reshape(x.shape[0] * x.shape[1], -1))
        return self.linear(rows.reshape(x.shape))
