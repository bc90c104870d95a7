# SPDX-License-Identifier: Apache-2.0
"""SAN-10/15/19 (Zhao, Jia and Koltun, CVPR 2020) with patchwise self-attention, or with ACmix in its place.

Five levels, each a 2x2 max pool, a 1x1 convolution and residual blocks. Nothing but the attention looks around in a
block: at 3x3 pixels in the first level, at 7x7 in the others.
"""

from mindspore import nn, ops

from src.models.backbone import Backbone
from src.models.checks import check_depths, check_whole, first_stride
from src.models.registry import register_model
from src.ops.acmix import ConvolutionPath, Mix
from src.ops.drop_path import DropPath, drop_path_rates
from src.ops.patchwise_attention import PatchwiseAttention

BLOCKS = {10: (2, 1, 2, 4, 1), 15: (3, 2, 3, 5, 2), 19: (3, 3, 4, 6, 3)}
KERNELS = (3, 7, 7, 7, 7)
STEMS = {"imagenet": 4, "small": 2}  # name: by how much the first two levels shrink the image
SHARE = 8  # value channels to one attention weight
PIECES = 6  # query and key of C / 16 channels each, value of C / 4


def patchwise_acmix(channels, kernel, *, paths="both", kernel_conv=3, shift="learnable"):
    """ACmix with patchwise attention to kernel x kernel pixels: (B, C, H, W) -> (B, C / 4, H, W)."""
    slots, out_channels = channels // 16, channels // 4
    return Mix(
        nn.Conv2d(channels, PIECES * slots, 1, has_bias=True),
        PatchwiseAttention(slots, out_channels, kernel, SHARE),
        ConvolutionPath(PIECES, slots, out_channels, kernel_conv, shift=shift),
        paths,
    )


def patchwise_attention(channels, kernel):
    """What a block of plain SAN does in space: (B, C, H, W) -> (B, C / 4, H, W)."""
    return patchwise_acmix(channels, kernel, paths="attention")


@ops.constexpr
def _check_side(height, width, smallest):
    """Refuse, while the graph is compiled, an image of which the max pools leave nothing."""
    if min(height, width) < smallest:
        raise ValueError(f"an image must have at least {smallest} x {smallest} pixels, got {height} x {width}")


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


class SAN(Backbone):
    """A 1x1 convolution, five levels, global average pooling and a linear head. The last four levels make the maps.

    Args:
        spatial: `spatial(channels, kernel)` makes what a block does in space.
        depths (sequence): blocks of each of the five levels.
        stem (str): "imagenet" (the first level halves the image) or "small" (it keeps the size).
        width (int): channels of the first level, a multiple of 32; 64 in the paper. The next has four times as many,
            each further one twice as many as the one before.

    Raises:
        ValueError: an unknown stem, an impossible number, or an image smaller than the total stride; one smaller than
            that in the graph, when it is compiled.
    """

    def __init__(
        self,
        spatial,
        num_classes,
        image_size,
        in_channels,
        drop_path_rate,
        features_only,
        *,
        depths,
        stem="imagenet",
        width=64,
    ):
        check_depths(depths, 5)
        check_whole(width=width)
        if width % 32:
            raise ValueError(f"width must be a multiple of 32, got {width}")
        stride = first_stride(stem, STEMS, image_size)
        super().__init__([width << stage for stage in (2, 3, 4, 5)], stride, features_only)
        self.smallest_side = 8 * stride
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        self.conv_in = nn.Conv2d(in_channels, width, 1)
        self.bn_in = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        before, levels = width, []
        for level, (depth, kernel) in enumerate(zip(depths, KERNELS)):
            channels = width << (level + 1) if level else width
            cells = [Bottleneck(channels, spatial(channels, kernel), next(rates)) for _ in range(depth)]
            levels.append(Level(before, channels, 2 if level else stride // 2, cells))
            before = channels
        self.level0, self.level1, self.level2, self.level3, self.level4 = levels
        if not features_only:
            self.fc = nn.Dense(before, num_classes)

    def construct(self, x):
        _check_side(x.shape[2], x.shape[3], self.smallest_side)
        x1 = self.level1(self.level0(self.relu(self.bn_in(self.conv_in(x)))))
        x2 = self.level2(x1)
        x3 = self.level3(x2)
        x4 = self.level4(x3)
        if self.features_only:
            return x1, x2, x3, x4
        return self.fc(x4.mean((2, 3)))

    def layers(self):
        layers, before = [(self.conv_in, self.bn_in)], ()
        for level in (self.level0, self.level1, self.level2, self.level3, self.level4):
            first, *others = level.layer
            layers += [(*before, level.conv, first), *((block,) for block in others)]
            before = (level.bn,)
        return (*layers, (*before, self.fc))


for layers, depths in BLOCKS.items():
    register_model(f"san{layers}", SAN, patchwise_attention, depths=depths)
    register_model(f"acmix_san{layers}", SAN, patchwise_acmix, depths=depths)

# How the published code calls our parameters; see `src.models.published`.
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
    (r"^(.*\.)qkv(\..*)$", r"\1conv1\2|\1conv2\2|\1conv3\2*4"),
)
