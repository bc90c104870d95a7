# SPDX-License-Identifier: Apache-2.0
"""What heads on anchors are made of: convolutions that begin small, their channels told apart by anchor."""

from mindspore import nn
from mindspore.common.initializer import Normal

STD = 0.01


def convolution(in_channels, out_channels, kernel, std=STD, bias=0.0):
    """Return a kernel x kernel convolution whose weights begin normal, of deviation `std`."""
    return nn.Conv2d(
        in_channels,
        out_channels,
        kernel,
        pad_mode="pad",
        padding=kernel // 2,
        has_bias=True,
        weight_init=Normal(std),
        bias_init=bias,
    )


def by_anchor(x, numbers):
    """(B, A * numbers, h, w) -> (B, h * w * A, numbers), in the order of `src.boxes.anchors`."""
    return x.transpose(0, 2, 3, 1).reshape(x.shape[0], -1, numbers)
