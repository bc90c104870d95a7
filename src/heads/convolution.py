# SPDX-License-Identifier: Apache-2.0
"""What heads are made of: convolutions with a bias, and the block of convolution, batch norm and ReLU."""

from mindspore import nn
from mindspore.common.initializer import HeNormal

from src.ops.convolution import Convolution


def biased_convolution(in_channels, out_channels, kernel, weight, stride=1, bias="zeros"):
    """Return a kernel x kernel convolution with a bias, padded by kernel // 2: (B, in, H, W) -> (B, out, H', W').

    Args:
        weight, bias: how they begin, as `nn.Conv2d` takes it.
    """
    return Convolution(
        in_channels,
        out_channels,
        kernel,
        stride,
        pad_mode="pad",
        padding=kernel // 2,
        has_bias=True,
        weight_init=weight,
        bias_init=bias,
    )


def he_normal():
    """Return how weights before a ReLU begin."""
    return HeNormal(mode="fan_out", nonlinearity="relu")


class ConvNormRelu(nn.Cell):
    """(B, in, H, W) -> (B, out, H, W), a kernel x kernel convolution without bias, its norm and ReLU.

    Args:
        convolution: a kind of `nn.Conv2d`; what it takes, this takes.
        norm: a kind of `nn.BatchNorm2d`; what it takes besides a map, this takes too.
    """

    def __init__(self, in_channels, out_channels, kernel=1, convolution=Convolution, norm=nn.BatchNorm2d):
        super().__init__()
        self.conv = convolution(
            in_channels, out_channels, kernel, pad_mode="pad", padding=kernel // 2, weight_init=he_normal()
        )
        self.bn = norm(out_channels)
        self.relu = nn.ReLU()

    def construct(self, x, *of_norm):
        return self.relu(self.bn(self.conv(x), *of_norm))


# How PyTorch calls what its norms hold; see `src.models.published`.
OF_NORMS = (
    (r"\.bn\.gamma$", ".bn.weight"),
    (r"\.bn\.beta$", ".bn.bias"),
    (r"\.bn\.moving_mean$", ".bn.running_mean"),
    (r"\.bn\.moving_variance$", ".bn.running_var"),
)
