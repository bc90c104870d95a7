# SPDX-License-Identifier: Apache-2.0
"""Pyramid Vision Transformer (Wang et al., ICCV 2021), plain or with ACmix in place of its attention.

Four stages, each an embedding of patches, a table of positions and transformer blocks. The last stage has a class
token, which is all that the head reads.
"""

import math

import numpy as np
from mindspore import Parameter, nn, ops
from mindspore.common.initializer import TruncatedNormal, initializer

from src.models.backbone import Backbone
from src.models.checks import check_depths, check_whole
from src.models.drop_path import DropPath, drop_path_rates
from src.models.registry import register_model
from src.ops.gelu import Gelu
from src.ops.spatial_reduction_attention import SpatialReductionAttention

DEPTHS = {"tiny": (2, 2, 2, 2), "small": (3, 4, 6, 3)}
WIDTHS = (1, 2, 5, 8)  # channels of a stage as multiples of the first's, and its heads
MLP_RATIOS = (8, 8, 4, 4)
REDUCTIONS = (8, 4, 2, 1)
PATCHES = (4, 2, 2, 2)


def reduced_attention(channels, heads, grid, reduction):
    """The attention of the plain transformer: (B, L, C) -> (B, L, C)."""
    return SpatialReductionAttention(channels, heads, grid, reduction, paths="attention")


@ops.constexpr
def _check_size(height, width, image_size):
    """Refuse, while the graph is compiled, an image that the tables of positions were not made for."""
    if (height, width) != (image_size, image_size):
        raise ValueError(
            f"built for images of {image_size} x {image_size} pixels, got {height} x {width}; positions are of one size"
        )


class Mlp(nn.Cell):
    """(B, L, C) -> (B, L, ratio * C) -> GELU -> (B, L, C)."""

    def __init__(self, channels, ratio):
        super().__init__()
        self.fc1 = nn.Dense(channels, ratio * channels)
        self.gelu = Gelu()
        self.fc2 = nn.Dense(ratio * channels, channels)

    def construct(self, tokens):
        return self.fc2(self.gelu(self.fc1(tokens)))


class Block(nn.Cell):
    """Attention, then a perceptron, each after a norm and beside a shortcut: (B, L, C) -> (B, L, C)."""

    def __init__(self, channels, attention, mlp_ratio, drop_path):
        super().__init__()
        self.norm1 = nn.LayerNorm((channels,), epsilon=1e-6)
        self.attention = attention
        self.norm2 = nn.LayerNorm((channels,), epsilon=1e-6)
        self.mlp = Mlp(channels, mlp_ratio)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def construct(self, tokens):
        tokens = tokens + self.drop_path(self.attention(self.norm1(tokens)))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


class Embedding(nn.Cell):
    """(B, in, H, W) -> (B, t + H*W / patch^2, C): patches row by row after t class tokens (0 or 1), with positions.

    The table of positions has `leading` rows before those of the patches: a class token's, used only if it is there.
    """

    def __init__(self, in_channels, channels, patch, side, leading, class_token):
        super().__init__()
        self.projection = nn.Conv2d(in_channels, channels, patch, patch, pad_mode="valid", has_bias=True)
        self.norm = nn.LayerNorm((channels,), epsilon=1e-5)
        self.side, self.leading, self.has_class_token = side, leading, class_token
        if class_token:
            self.class_token = Parameter(initializer(TruncatedNormal(0.02), (1, 1, channels)), name="class_token")
        shape = (1, leading + side * side, channels)
        self.position = Parameter(initializer(TruncatedNormal(0.02), shape), name="position")

    def construct(self, x):
        maps = self.projection(x)
        batch, channels, height, width = maps.shape
        tokens = self.norm(maps.reshape(batch, channels, height * width).transpose(0, 2, 1))
        position = self.position.astype(tokens.dtype)
        if self.has_class_token:
            class_token = ops.tile(self.class_token.astype(tokens.dtype), (batch, 1, 1))
            tokens = ops.concat((class_token, tokens), 1)
        elif self.leading > 0:
            position = position[:, self.leading :]
        return tokens + position

    def resized(self, table):
        """Return `position` of any image size for this one (see `src.models.image_size`); no square map: unchanged."""
        if table.ndim != 3 or table.shape[1] <= 1:
            return table
        patches = table.shape[1] - self.leading
        old = math.isqrt(patches)
        return resize_position(table, old, self.side) if old * old == patches != self.side**2 else table


class PyramidVisionTransformer(Backbone):
    """See the module. Without a head there is no class token either, as in the published code for detection.

    Args:
        spatial: `spatial(channels, heads, grid, reduction)` makes the attention of a block.
        depths (sequence): blocks of each stage.
        width (int): channels per head, and of the first stage; 64 in the paper.

    Raises:
        ValueError: an image size that 32 does not divide, or depths and width that are not positive; an image of
            another size, when the graph is compiled.
    """

    head_name = "head"

    def __init__(
        self, spatial, num_classes, image_size, in_channels, drop_path_rate, features_only, *, depths, width=64
    ):
        check_depths(depths, len(WIDTHS))
        check_whole(width=width)
        super().__init__([width * heads for heads in WIDTHS], PATCHES[0], features_only)
        self.image_size = image_size
        if image_size % 32:
            raise ValueError(f"image_size must be divisible by 32, the stride of the last stage, got {image_size}")
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        side, embeddings, stages = image_size, [], []
        for stage, heads in enumerate(WIDTHS):
            channels, side = width * heads, side // PATCHES[stage]
            last = stage == len(WIDTHS) - 1
            class_token = last and not features_only
            embeddings.append(Embedding(in_channels, channels, PATCHES[stage], side, int(last), class_token))
            cells = []
            for _ in range(depths[stage]):
                attention = spatial(channels, heads, (side, side), REDUCTIONS[stage])
                cells.append(Block(channels, attention, MLP_RATIOS[stage], next(rates)))
            stages.append(nn.SequentialCell(*cells))
            in_channels = channels
        self.embedding1, self.embedding2, self.embedding3, self.embedding4 = embeddings
        self.stage1, self.stage2, self.stage3, self.stage4 = stages
        if not features_only:
            self.norm = nn.LayerNorm((channels,), epsilon=1e-6)
            self.head = nn.Dense(channels, num_classes)
        for _, cell in self.cells_and_names():
            if isinstance(cell, nn.Dense):
                cell.weight.set_data(initializer(TruncatedNormal(0.02), cell.weight.shape))
                cell.bias.set_data(initializer("zeros", cell.bias.shape))

    def construct(self, x):
        _check_size(x.shape[2], x.shape[3], self.image_size)
        x1 = self.as_map(self.stage1(self.embedding1(x)))
        x2 = self.as_map(self.stage2(self.embedding2(x1)))
        x3 = self.as_map(self.stage3(self.embedding3(x2)))
        x4 = self.stage4(self.embedding4(x3))
        if self.features_only:
            return x1, x2, x3, self.as_map(x4)
        return self.head(self.norm(x4[:, 0]))

    def layers(self):
        layers = [(self.embedding1,)]
        for before, stage in (
            ((), self.stage1),
            ((self.embedding2,), self.stage2),
            ((self.embedding3,), self.stage3),
            ((self.embedding4,), self.stage4),
        ):
            first, *others = stage
            layers += [(*before, first), *((block,) for block in others)]
        return (*layers, (self.norm, self.head))

    def as_map(self, tokens):
        """(B, H*W, C) of a square map -> (B, C, H, W)."""
        batch, length, channels = tokens.shape
        side = int(length**0.5)
        return tokens.transpose(0, 2, 1).reshape(batch, channels, side, side)


def resize_position(table, old, new):
    """Interpolate a table of positions, as the published code does for a checkpoint of another image size.

    Args:
        table (np.ndarray): (1, t + old * old, C), row by row after the t class tokens, which stay as they are.
        old, new (int): sides of the grids, in patches.

    Returns:
        np.ndarray: (1, t + new * new, C), bilinear between the centres of patches, constant beyond the outermost.

    Raises:
        ValueError: a table too short for its grid.
    """
    before = table.shape[1] - old * old
    if before < 0:
        raise ValueError(f"a table of {table.shape[1]} positions cannot hold a grid of {old} x {old}")
    place = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    # Row i: the weights of the old places in the new place i.
    weights = np.maximum(1 - np.abs(place[:, None] - np.arange(old)), 0)
    grid = table[0, before:].reshape(old, old, -1)
    resized = np.einsum("yi,xj,ijc->yxc", weights, weights, grid).reshape(1, new * new, -1)
    return np.concatenate([table[:, :before], resized.astype(table.dtype)], axis=1)


for size, depths in DEPTHS.items():
    register_model(f"pvt_{size}", PyramidVisionTransformer, reduced_attention, depths=depths)
    register_model(f"acmix_pvt_{size}", PyramidVisionTransformer, SpatialReductionAttention, depths=depths)

# How the published code calls our parameters; see `src.models.published`.
PUBLISHED = (
    (r"^embedding(\d)\.projection\.", r"patch_embed\1.proj."),
    (r"^embedding(\d)\.norm\.", r"patch_embed\1.norm."),
    (r"^embedding(\d)\.position$", r"pos_embed\1"),
    (r"^embedding4\.class_token$", "cls_token"),
    (r"^stage(\d)\.", r"block\1."),
    (r"\.attention\.qkv\.query\.", ".attn.q."),
    (r"\.attention\.qkv\.key_value\.", ".attn.kv."),
    (r"\.attention\.qkv\.reduce\.", ".attn.sr."),
    (r"\.attention\.qkv\.norm\.", ".attn.norm."),
    (r"\.attention\.attention\.projection\.", ".attn.proj."),
    (r"(norm\d?\.)gamma$", r"\1weight"),
    (r"(norm\d?\.)beta$", r"\1bias"),
)
