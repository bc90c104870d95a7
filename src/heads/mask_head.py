# SPDX-License-Identifier: Apache-2.0
"""Which pixels of a box are of the thing in it (He et al., *Mask R-CNN*, ICCV 2017, arXiv 1703.06870, section 3)."""

from mindspore import Parameter, nn, ops
from mindspore.common.initializer import initializer

from src.heads.convolution import biased_convolution, he_normal

CONVOLUTIONS = 4
POOLED = 14  # the side of what is pooled of each box; masks have twice as many pixels


class Doubling(nn.Cell):
    """A 2x2 transposed convolution of stride 2: (N, C, h, w) -> (N, C, 4, h * w), pixel by pixel its 2x2, row by row.

    A 1x1 convolution, since each pixel that comes out is of one that comes in; `doubled` lays it out as a map. The ONNX
    file that MindSpore writes of a transposed convolution cannot be run.
    """

    def __init__(self, channels):
        super().__init__()
        self.channels = channels
        # As PyTorch has it: in, out, row, column.
        self.weight = Parameter(initializer(he_normal(), (channels, channels, 2, 2)), name="weight")
        self.bias = Parameter(initializer("zeros", (channels,)), name="bias")
        self.product = ops.Conv2D(4 * channels, (1, 1))

    def construct(self, x):
        weight = self.weight.transpose(1, 2, 3, 0).reshape(4 * self.channels, self.channels, 1, 1)
        bias = self.bias.reshape(-1, 1).broadcast_to((self.channels, 4)).reshape(-1)
        out = ops.bias_add(self.product(x, weight.astype(x.dtype)), bias.astype(x.dtype))
        return out.reshape(x.shape[0], self.channels, 4, -1)


def doubled(x, height, width):
    """(N, 4, h * w), the 2x2 of each pixel, to (N, 2h, 2w)."""
    x = x.reshape(-1, 2, 2, height, width).transpose(0, 3, 1, 4, 2)
    return x.reshape(-1, 2 * height, 2 * width)


class MaskHead(nn.Cell):
    """Boxes, pooled, to the mask of one class each: the masks of the other classes are never made.

    Args:
        channels (int): C of the maps.
        num_classes (int): K.

    Inputs: x (N, C, 14, 14), and classes int32 (N,), from 0 to K - 1. Outputs: logits (N, 28, 28).
    """

    def __init__(self, channels, num_classes):
        super().__init__()
        self.convolutions = nn.CellList(
            [biased_convolution(channels, channels, 3, he_normal()) for _ in range(CONVOLUTIONS)]
        )
        self.relu = nn.ReLU()
        self.doubling = Doubling(channels)
        self.logits = biased_convolution(channels, num_classes, 1, he_normal())
        self.product = ops.BatchMatMul()

    def construct(self, x, classes):
        for layer in self.convolutions:
            x = self.relu(layer(x))
        count, channels, height, width = x.shape
        x = self.relu(self.doubling(x)).reshape(count, channels, -1)
        # The last convolution, of one class.
        weight = ops.gather(self.logits.weight.reshape(-1, channels), classes, 0).expand_dims(1)
        bias = ops.gather(self.logits.bias, classes, 0).reshape(-1, 1, 1)
        logits = self.product(weight.astype(x.dtype), x) + bias.astype(x.dtype)
        return doubled(logits, height, width)


# How mmdetection calls our parameters; see `src.models.published`.
PUBLISHED = (
    (r"^convolutions\.(\d)\.", r"convs.\1.conv."),
    (r"^doubling\.", "upsample."),
    (r"^logits\.", "conv_logits."),
)
