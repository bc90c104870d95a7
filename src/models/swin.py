# SPDX-License-Identifier: Apache-2.0
"""Swin Transformers (Liu et al. 2021, arXiv 2103.14030), plain or with ACmix in place of each window attention.

Four stages of blocks; each block is attention and a two-layer perceptron, both after a norm and around a shortcut. Maps
lie channels last, (B, H, W, C), as norms and linear layers want them.
"""

from functools import partial

from mindspore import nn, ops
from mindspore.common.initializer import TruncatedNormal

from src.models.drop_path import DropPath, drop_path_rates
from src.models.registry import register_model
from src.ops.gelu import Gelu
from src.ops.window_attention import WindowACmix

DEPTHS = {"tiny": (2, 2, 6, 2), "small": (2, 2, 18, 2)}


def linear(in_channels, out_channels, has_bias=True):
    return nn.Dense(in_channels, out_channels, has_bias=has_bias, weight_init=TruncatedNormal(0.02), bias_init="zeros")


def norm(channels):
    return nn.LayerNorm((channels,), epsilon=1e-5)


def padded(x, multiple):
    """Fill (B, H, W, C) up with zeros at the bottom and right, to multiples of `multiple`."""
    below, right = -x.shape[1] % multiple, -x.shape[2] % multiple
    if below + right > 0:
        x = ops.Pad(((0, 0), (0, below), (0, right), (0, 0)))(x)
    return x


class PatchEmbed(nn.Cell):
    """A linear layer on each patch, and a norm: (B, in, H, W) -> (B, ceil(H / patch), ceil(W / patch), C)."""

    def __init__(self, in_channels, channels, patch):
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(in_channels, channels, patch, patch, pad_mode="valid", has_bias=True)
        self.norm = norm(channels)

    def construct(self, x):
        below, right = -x.shape[2] % self.patch, -x.shape[3] % self.patch
        if below + right > 0:
            x = ops.Pad(((0, 0), (0, 0), (0, below), (0, right)))(x)
        return self.norm(self.proj(x).transpose(0, 2, 3, 1))


class PatchMerging(nn.Cell):
    """Norm and linear layer on each 2x2 patch: (B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), 2C)."""

    def __init__(self, channels):
        super().__init__()
        self.norm = norm(4 * channels)
        self.reduction = linear(4 * channels, 2 * channels, has_bias=False)

    def construct(self, x):
        x = padded(x, 2)
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
        # Column by column, as the published weights have the four pixels.
        x = x.transpose(0, 1, 3, 4, 2, 5).reshape(batch, height // 2, width // 2, 4 * channels)
        return self.reduction(self.norm(x))


class Perceptron(nn.Cell):
    """Two linear layers with the exact GELU between: (..., C) -> (..., C)."""

    def __init__(self, channels, hidden):
        super().__init__()
        self.fc1 = linear(channels, hidden)
        self.gelu = Gelu()
        self.fc2 = linear(hidden, channels)

    def construct(self, x):
        return self.fc2(self.gelu(self.fc1(x)))


class Block(nn.Cell):
    """x + attention(norm(x)), then x + perceptron(norm(x)): (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, channels, attention, mlp_ratio, drop_path):
        super().__init__()
        self.norm1 = norm(channels)
        self.attn = attention
        self.norm2 = norm(channels)
        self.mlp = Perceptron(channels, channels * mlp_ratio)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def construct(self, x):
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Stage(nn.Cell):
    """Patch merging (not in the first stage), then blocks, every second one on a rolled map."""

    def __init__(self, downsample, blocks):
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.SequentialCell(*blocks)

    def construct(self, x):
        return self.blocks(self.downsample(x))


class Swin(nn.Cell):
    """Patches, four stages, a norm, global average pooling and a linear head.

    A window larger than a stage's map at `image_size` shrinks to it and is not rolled; other maps are filled up to
    whole windows.

    Args:
        attention: `attention(channels, heads, window, cyclic_shift)` makes the attention of a block.
        depths (sequence): blocks of each of the four stages.
        width (int): channels of the first stage, doubled in each that follows.
        heads (int): heads in the first stage, doubled in each that follows.
        window (int): side of a window in pixels of the map.
        patch (int): side of a patch in pixels of the image; 2 suits images of 28 to 64 pixels.
        mlp_ratio (int): hidden channels of the perceptron over its channels.

    Raises:
        ValueError: a number below 1, not four depths, or what the attention cannot take.
    """

    def __init__(
        self,
        attention,
        num_classes,
        image_size,
        in_channels,
        drop_path_rate,
        depths,
        width,
        heads,
        window,
        patch,
        mlp_ratio,
    ):
        super().__init__()
        _check(depths, {"width": width, "heads": heads, "window": window, "patch": patch, "mlp_ratio": mlp_ratio})
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        self.embed = PatchEmbed(in_channels, width, patch)
        size, stages = -(-image_size // patch), []
        for stage, depth in enumerate(depths):
            channels, side = width << stage, min(window, size)
            rolled = side // 2 if window < size else 0
            blocks = [
                Block(
                    channels,
                    attention(channels, heads << stage, side, rolled if block % 2 else 0),
                    mlp_ratio,
                    next(rates),
                )
                for block in range(depth)
            ]
            stages.append(Stage(PatchMerging(channels // 2) if stage else nn.Identity(), blocks))
            size = -(-size // 2)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.norm = norm(channels)
        self.head = linear(channels, num_classes)

    def construct(self, x):
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.embed(x)))))
        return self.head(self.norm(x).mean((1, 2)))


def _check(depths, numbers):
    """Refuse what is no whole number from 1."""
    if not isinstance(depths, (list, tuple)) or len(depths) != 4:
        raise ValueError(f"depths must be four numbers of blocks, got {depths!r}")
    for name, value in [*numbers.items(), *(("depths", depth) for depth in depths)]:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number from 1, got {value!r}")


def plain_builder(depths):
    """The builder of `swin_<size>`: window attention alone."""

    def build(
        num_classes,
        image_size,
        in_channels,
        drop_path_rate,
        depths=depths,
        width=96,
        heads=3,
        window=7,
        patch=4,
        mlp_ratio=4,
    ):
        attention = partial(WindowACmix, paths="attention")
        return Swin(
            attention,
            num_classes,
            image_size,
            in_channels,
            drop_path_rate,
            depths,
            width,
            heads,
            window,
            patch,
            mlp_ratio,
        )

    return build


def acmix_builder(depths):
    """The builder of `acmix_swin_<size>`: ACmix in each block."""

    def build(
        num_classes,
        image_size,
        in_channels,
        drop_path_rate,
        depths=depths,
        width=96,
        heads=3,
        window=7,
        patch=4,
        mlp_ratio=4,
        kernel_conv=3,
        paths="both",
        shift="learnable",
    ):
        attention = partial(WindowACmix, kernel_conv=kernel_conv, paths=paths, shift=shift)
        return Swin(
            attention,
            num_classes,
            image_size,
            in_channels,
            drop_path_rate,
            depths,
            width,
            heads,
            window,
            patch,
            mlp_ratio,
        )

    return build


for size, depths in DEPTHS.items():
    register_model(f"swin_{size}", plain_builder(depths))
    register_model(f"acmix_swin_{size}", acmix_builder(depths))

# Rules for `src.models.published`: how the published code (and Microsoft's Swin) calls each parameter.
PUBLISHED = (
    (r"^embed\.", "patch_embed."),
    (r"^layer(\d)\.downsample\.", lambda m: f"layers.{int(m[1]) - 2}.downsample."),  # there at the end of a stage
    (r"^layer(\d)\.", lambda m: f"layers.{int(m[1]) - 1}."),
    (r"((?:^|\.)norm\d?\.)gamma$", r"\1weight"),
    (r"((?:^|\.)norm\d?\.)beta$", r"\1bias"),
    (r"\.attn\.alpha$", ".attn.rate1"),
    (r"\.attn\.beta$", ".attn.rate2"),
    (r"\.attention\.position$", ".relative_position_bias_table"),
    (r"\.attention\.project\.", ".proj."),
    (r"\.convolution\.fc\.", ".fc."),
    (r"\.convolution\.shift\.", ".dep_conv."),
)
