# SPDX-License-Identifier: Apache-2.0
"""SAN-10/15/19 (Zhao, Jia and Koltun, CVPR 2020) with patchwise self-attention, or with ACmix in its place.

Five levels, each a 2x2 max pool, a 1x1 convolution and residual blocks. Nothing but the attention looks around in a
block: at 3x3 pixels in the first level, at 7x7 in the others.
"""

from mindspore import nn

from src.models.drop_path import DropPath, drop_path_rates
from src.models.registry import register_model
from src.ops.acmix import ConvolutionPath, Mix
from src.ops.patchwise_attention import PatchwiseAttention

BLOCKS = {10: (2, 1, 2, 4, 1), 15: (3, 2, 3, 5, 2), 19: (3, 3, 4, 6, 3)}
KERNELS = (3, 7, 7, 7, 7)
STEMS = {"imagenet": 2, "small": 1}  # name: by how much the first level shrinks the image
SHARE = 8  # value channels to one attention weight
PIECES = 6  # query and key of C / 16 channels each, value of C / 4


def spatial(channels, kernel, paths, kernel_conv, shift):
    """What a block of C channels does in space: (B, C, H, W) -> (B, C / 4, H, W)."""
    slots, out_channels = channels // 16, channels // 4
    return Mix(
        nn.Conv2d(channels, PIECES * slots, 1, has_bias=True),
        PatchwiseAttention(slots, out_channels, kernel, SHARE),
        ConvolutionPath(PIECES, slots, out_channels, kernel_conv, shift=shift),
        paths,
    )


class Bottleneck(nn.Cell):
    """Norm and ReLU, `sam`, norm and ReLU, 1x1 up, and the shortcut: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels, sam, drop_path):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.sam = sam
        self.bn2 = nn.BatchNorm2d(channels // 4)
        self.conv = nn.Conv2d(channels // 4, channels, 1, has_bias=True)
        self.relu = nn.ReLU()
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def construct(self, x):
        out = self.sam(self.relu(self.bn1(x)))
        out = self.conv(self.relu(self.bn2(out)))
        return x + self.drop_path(out)


class Level(nn.Cell):
    """Max pool (if `shrink` is 2), 1x1 convolution, blocks, norm, ReLU: (B, in, H, W) -> (B, C, H / shrink, ...)."""

    def __init__(self, in_channels, channels, shrink, blocks):
        super().__init__()
        self.pool = nn.MaxPool2d(2, 2) if shrink == 2 else nn.Identity()
        self.conv = nn.Conv2d(in_channels, channels, 1)
        self.layer = nn.SequentialCell(*blocks)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()

    def construct(self, x):
        return self.relu(self.bn(self.layer(self.conv(self.pool(x)))))


class SAN(nn.Cell):
    """A 1x1 convolution, five levels, global average pooling and a linear head.

    Args:
        depth (int): 10, 15 or 19.
        stem (str): "imagenet" (the first level halves the image) or "small" (it keeps the size).
        width (int): channels of the first level, a multiple of 32; 64 in the paper. The next has four times as many,
            each further one twice as many as the one before.
        paths, kernel_conv, shift: of ACmix; plain SAN has the attention path alone.

    Raises:
        ValueError: an unknown stem, an impossible width, or an image smaller than the total stride.
    """

    def __init__(
        self, depth, num_classes, image_size, in_channels, drop_path_rate, stem, width, paths, kernel_conv, shift
    ):
        super().__init__()
        if stem not in STEMS:
            raise ValueError(f"stem must be one of {', '.join(STEMS)}, got {stem!r}")
        smallest = STEMS[stem] * 16
        if image_size < smallest:
            advice = "; stem='small' takes images from 16 pixels" if stem != "small" else ""
            raise ValueError(f"image_size must be at least {smallest} with stem={stem!r}, got {image_size}{advice}")
        if isinstance(width, bool) or not isinstance(width, int) or width < 1 or width % 32:
            raise ValueError(f"width must be a multiple of 32, got {width!r}")
        blocks = BLOCKS[depth]
        rates = iter(drop_path_rates(drop_path_rate, sum(blocks)))
        self.conv_in = nn.Conv2d(in_channels, width, 1)
        self.bn_in = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        before, levels = width, []
        for level, (count, kernel) in enumerate(zip(blocks, KERNELS)):
            channels = width << (level + 1) if level else width
            cells = [
                Bottleneck(channels, spatial(channels, kernel, paths, kernel_conv, shift), next(rates))
                for _ in range(count)
            ]
            levels.append(Level(before, channels, 2 if level else STEMS[stem], cells))
            before = channels
        self.level0, self.level1, self.level2, self.level3, self.level4 = levels
        self.fc = nn.Dense(before, num_classes)

    def construct(self, x):
        x = self.level0(self.relu(self.bn_in(self.conv_in(x))))
        x = self.level4(self.level3(self.level2(self.level1(x))))
        return self.fc(x.mean((2, 3)))


def plain_builder(depth):
    """The builder of `san<depth>`: patchwise self-attention alone."""

    def build(num_classes, image_size, in_channels, drop_path_rate, stem="imagenet", width=64):
        return SAN(
            depth, num_classes, image_size, in_channels, drop_path_rate, stem, width, "attention", 3, "learnable"
        )

    return build


def acmix_builder(depth):
    """The builder of `acmix_san<depth>`."""

    def build(
        num_classes,
        image_size,
        in_channels,
        drop_path_rate,
        stem="imagenet",
        width=64,
        paths="both",
        kernel_conv=3,
        shift="learnable",
    ):
        return SAN(depth, num_classes, image_size, in_channels, drop_path_rate, stem, width, paths, kernel_conv, shift)

    return build


for depth in BLOCKS:
    register_model(f"san{depth}", plain_builder(depth))
    register_model(f"acmix_san{depth}", acmix_builder(depth))

# From our names to those of the published PyTorch code, see `published.py`.
PUBLISHED = (
    (r"^level(\d)\.(conv|bn|layer)\.", r"\2\1."),
    (r"\.gamma$", ".weight"),
    (r"\.beta$", ".bias"),
    (r"\.moving_mean$", ".running_mean"),
    (r"\.moving_variance$", ".running_var"),
    (r"\.attention\.norm1\.", ".conv_w.0."),
    (r"\.attention\.linear1\.", ".conv_w.2."),
    (r"\.attention\.norm2\.", ".conv_w.3."),
    (r"\.attention\.linear2\.", ".conv_w.5."),
    (r"^(.*\.)qkv(\..*)$", r"\1conv1\2|\1conv2\2|\1conv3\2"),
)
