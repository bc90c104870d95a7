# SPDX-License-Identifier: Apache-2.0
"""Swin Transformers (Liu et al. 2021, arXiv 2103.14030), plain or with ACmix in place of each window attention.

Four stages of blocks; each block is attention and a two-layer perceptron, both after a norm and around a shortcut. Maps
lie channels last, (B, H, W, C), as norms and linear layers want them.
"""

from mindspore import nn
from mindspore.common.initializer import TruncatedNormal

from src.models.backbone import Backbone
from src.models.checks import check_depths, check_whole
from src.models.published import LAYER_NORMS
from src.models.registry import register_model
from src.ops.drop_path import DropPath, drop_path_rates
from src.ops.gelu import Gelu
from src.ops.padded import padded
from src.ops.window_attention import WindowACmix

DEPTHS = {"tiny": (2, 2, 6, 2), "small": (2, 2, 18, 2)}


def linear(in_channels, out_channels, has_bias=True):
    return nn.Dense(in_channels, out_channels, has_bias=has_bias, weight_init=TruncatedNormal(0.02), bias_init="zeros")


def norm(channels):
    return nn.LayerNorm((channels,), epsilon=1e-5)


def channels_first(x):
    """(B, H, W, C) -> (B, C, H, W)."""
    return x.transpose(0, 3, 1, 2)


def window_attention(channels, heads, window, cyclic_shift):
    """The attention of a plain Swin Transformer: (B, H, W, C) -> (B, H, W, C)."""
    return WindowACmix(channels, heads, window, cyclic_shift, paths="attention")


class PatchEmbed(nn.Cell):
    """A linear layer on each patch, and a norm: (B, in, H, W) -> (B, ceil(H / patch), ceil(W / patch), C)."""

    def __init__(self, in_channels, channels, patch):
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(in_channels, channels, patch, patch, pad_mode="valid", has_bias=True)
        self.norm = norm(channels)

    def construct(self, x):
        x = padded(padded(x, 3, self.patch), 2, self.patch)
        return self.norm(self.proj(x).transpose(0, 2, 3, 1))


class PatchMerging(nn.Cell):
    """Norm and linear layer on each 2x2 patch: (B, H, W, C) -> (B, ceil(H / 2), ceil(W / 2), 2C)."""

    def __init__(self, channels):
        super().__init__()
        self.norm = norm(4 * channels)
        self.reduction = linear(4 * channels, 2 * channels, has_bias=False)

    def construct(self, x):
        x = padded(padded(x, 2, 2), 1, 2)
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


class Swin(Backbone):
    """Patches, four stages, a norm, global average pooling and a linear head.

    A window no smaller than the shorter side of a stage's map at `image_size` shrinks to that and is not rolled; other
    maps are filled up to whole windows.

    Args:
        spatial: `spatial(channels, heads, window, cyclic_shift)` makes the attention of a block.
        image_size (tuple): (H, W) of the images that the windows are to suit.
        depths (sequence): blocks of each of the four stages.
        width (int): channels of the first stage, doubled in each that follows.
        heads (int): heads in the first stage, doubled in each that follows.
        window (int): side of a window in pixels of the map.
        patch (int): side of a patch in pixels of the image; 2 suits images of 28 to 64 pixels.
        mlp_ratio (int): hidden channels of the perceptron over its channels.

    Raises:
        ValueError: a number below 1, not four depths, or what the attention cannot take.
    """

    head_name = "head"

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
        width=96,
        heads=3,
        window=7,
        patch=4,
        mlp_ratio=4,
    ):
        check_depths(depths, 4)
        check_whole(width=width, heads=heads, window=window, patch=patch, mlp_ratio=mlp_ratio)
        super().__init__([width << stage for stage in range(4)], patch, features_only)
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        self.embed = PatchEmbed(in_channels, width, patch)
        size, stages = -(-min(image_size) // patch), []
        for stage, depth in enumerate(depths):
            channels, side = width << stage, min(window, size)
            rolled = side // 2 if window < size else 0
            blocks = [
                Block(
                    channels,
                    spatial(channels, heads << stage, side, rolled if block % 2 else 0),
                    mlp_ratio,
                    next(rates),
                )
                for block in range(depth)
            ]
            stages.append(Stage(PatchMerging(channels // 2) if stage else nn.Identity(), blocks))
            size = -(-size // 2)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        if not features_only:
            self.norm = norm(channels)
            self.head = linear(channels, num_classes)

    def construct(self, x):
        x1 = self.layer1(self.embed(x))
        x2 = self.layer2(x1)
        x3 = self.layer3(x2)
        x4 = self.layer4(x3)
        if self.features_only:
            return channels_first(x1), channels_first(x2), channels_first(x3), channels_first(x4)
        return self.head(self.norm(x4).mean((1, 2)))

    def layers(self):
        layers = [(self.embed,)]
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            first, *others = stage.blocks
            layers += [(stage.downsample, first), *((block,) for block in others)]
        return (*layers, (self.norm, self.head))


for size, depths in DEPTHS.items():
    register_model(f"swin_{size}", Swin, window_attention, depths=depths)
    register_model(f"acmix_swin_{size}", Swin, WindowACmix, depths=depths)

# How the published code (and Microsoft's Swin) calls our parameters; see `src.models.published`.
PUBLISHED = (
    (r"^embed\.", "patch_embed."),
    (r"^layer(\d)\.downsample\.", lambda m: f"layers.{int(m[1]) - 2}.downsample."),  # there at the end of a stage
    (r"^layer(\d)\.", lambda m: f"layers.{int(m[1]) - 1}."),
    *LAYER_NORMS,
    (r"\.attn\.alpha$", ".attn.rate1"),
    (r"\.attn\.beta$", ".attn.rate2"),
    (r"\.attention\.position$", ".relative_position_bias_table"),
    (r"\.attention\.project\.", ".proj."),
    (r"\.attn\.(qkv|proj)\.weight$", r".attn.\1.weight:linear"),
    (r"\.convolution\.fc\.", ".fc."),
    (r"\.convolution\.shift\.", ".dep_conv."),
)

# And mmsegmentation and mmdetection.
OPENMMLAB = (
    (r"^embed\.proj\.", "patch_embed.projection."),
    (r"^embed\.norm\.", "patch_embed.norm."),
    (r"^layer(\d)\.downsample\.(.*)$", lambda m: f"stages.{int(m[1]) - 2}.downsample.{m[2]}:unfolded"),
    (r"^layer(\d)\.", lambda m: f"stages.{int(m[1]) - 1}."),
    *LAYER_NORMS,
    (r"\.attn\.attention\.position$", ".attn.w_msa.relative_position_bias_table"),
    (r"\.attn\.attention\.project\.", ".attn.proj."),
    (r"\.attn\.(qkv|proj)\.weight$", r".attn.w_msa.\1.weight:linear"),
    (r"\.attn\.(qkv|proj)\.bias$", r".attn.w_msa.\1.bias"),
    (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
    (r"\.mlp\.fc2\.", ".ffn.layers.1."),
)
