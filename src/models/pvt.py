# SPDX-License-Identifier: Apache-2.0
"""Pyramid Vision Transformer (Wang et al., ICCV 2021), plain or with ACmix in place of its attention.

Four stages, each an embedding of patches, a table of positions and transformer blocks. The last stage has a class
token, which is all that the head reads.
"""

import math

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import TruncatedNormal, initializer

from src.image_size import sides
from src.models.backbone import Backbone
from src.models.checks import check_depths, check_whole
from src.models.published import LAYER_NORMS
from src.models.registry import register_model
from src.ops.drop_path import DropPath, drop_path_rates
from src.ops.gelu import Gelu
from src.ops.interpolation import interpolated, interpolation, linear
from src.ops.spatial_reduction_attention import SpatialReductionAttention

DEPTHS = {"tiny": (2, 2, 2, 2), "small": (3, 4, 6, 3)}
WIDTHS = (1, 2, 5, 8)  # channels of a stage as multiples of the first's, and its heads
MLP_RATIOS = (8, 8, 4, 4)
REDUCTIONS = (8, 4, 2, 1)
PATCHES = (4, 2, 2, 2)
SMALLEST = math.prod(PATCHES)  # image of which the last stage sees one patch


def reduced_attention(channels, heads, reduction):
    """The attention of the plain transformer: tokens (B, L, C) and their grid -> (B, L, C)."""
    return SpatialReductionAttention(channels, heads, reduction, paths="attention")


@ops.constexpr
def _check_size(height, width):
    """Refuse, while the graph is compiled, an image that is too small or not known."""
    if height is None or width is None:
        raise ValueError("PVT needs the height and width of its images when the graph is compiled")
    if min(height, width) < SMALLEST:
        raise ValueError(f"PVT takes images from {SMALLEST} x {SMALLEST} pixels, got {height} x {width}")


@ops.constexpr
def _interpolation(old, new):
    """The weights of the old places in the new ones, as a tensor made while the graph is compiled."""
    return Tensor(interpolation(old, new, linear).astype(np.float32))


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
    """Attention, then a perceptron, each after a norm and beside a shortcut: (B, L, C) and a grid -> both."""

    def __init__(self, channels, attention, mlp_ratio, drop_path):
        super().__init__()
        self.norm1 = nn.LayerNorm((channels,), epsilon=1e-6)
        self.attention = attention
        self.norm2 = nn.LayerNorm((channels,), epsilon=1e-6)
        self.mlp = Mlp(channels, mlp_ratio)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def construct(self, tokens_and_grid):
        tokens, grid = tokens_and_grid
        tokens = tokens + self.drop_path(self.attention((self.norm1(tokens), grid)))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens))), grid


class Embedding(nn.Cell):
    """(B, in, H, W) -> tokens (B, t + h*w, C) and their grid (h, w) = (H // patch, W // patch).

    The tokens are the patches row by row after `leading` class tokens (0 or 1), with positions. The table of positions
    is of the grid of images of `image_size`, (H, W) in pixels of which the Cell's input has a `stride`-th; to other
    grids it is interpolated in the graph, as the published code for detection does.
    """

    def __init__(self, in_channels, channels, patch, image_size, stride, leading):
        super().__init__()
        self.projection = nn.Conv2d(in_channels, channels, patch, patch, pad_mode="valid", has_bias=True)
        self.norm = nn.LayerNorm((channels,), epsilon=1e-5)
        self.stride, self.grid = stride, grid_of(image_size, stride)
        self.leading = leading
        if leading:
            self.class_token = Parameter(initializer(TruncatedNormal(0.02), (1, 1, channels)), name="class_token")
        shape = (1, leading + math.prod(self.grid), channels)
        self.position = Parameter(initializer(TruncatedNormal(0.02), shape), name="position")

    def construct(self, x):
        maps = self.projection(x)
        batch, channels, height, width = maps.shape
        tokens = self.norm(maps.reshape(batch, channels, height * width).transpose(0, 2, 1))
        position = self.position
        if (height, width) != self.grid:
            position = self.position_on(height, width)
        position = position.astype(tokens.dtype)
        if self.leading > 0:
            class_token = ops.tile(self.class_token.astype(tokens.dtype), (batch, 1, 1))
            tokens = ops.concat((class_token, tokens), 1)
        return tokens + position, (height, width)

    def position_on(self, height, width):
        """`position` for a grid of another size, float32; the same as `resize_position`."""
        table = self.position.astype(mstype.float32)
        leading, grid = table[:, : self.leading], table[0, self.leading :]
        # Rows and columns change places, so that each product is one of matrices.
        grid = grid.reshape(*self.grid, -1).transpose(1, 0, 2).reshape(self.grid[1], -1)
        grid = ops.matmul(_interpolation(self.grid[1], width), grid)
        grid = grid.reshape(width, self.grid[0], -1).transpose(1, 0, 2).reshape(self.grid[0], -1)
        grid = ops.matmul(_interpolation(self.grid[0], height), grid).reshape(1, height * width, -1)
        return ops.concat((leading, grid), 1) if self.leading > 0 else grid

    def resized(self, table, image_size=None):
        """Return `position` of any image size for this one, see `src.models.image_size`.

        The published files, which do not say their size, are of squares. A class token's row is left out where there is
        no class token.

        Raises:
            ValueError: a table that could be of a square or of this grid, where `image_size` does not tell.
        """
        if table.ndim != 3:
            return table
        candidates = [table] if self.leading else [table, table[:, 1:]]
        # A table of `position_size` is none of the images' size.
        found = (
            (candidate, grids)
            for size in (image_size, None)
            for candidate in candidates
            if (grids := self.fitting_grids(candidate.shape[1] - self.leading, size))
        )
        table, fitting = next(found, (table, []))
        patches = table.shape[1] - self.leading
        if len(fitting) > 1:
            (a, b), (c, d) = sorted(fitting)
            raise ValueError(
                f"{patches} positions may be of {a} x {b} or {c} x {d} patches; convert the file at the size it is of, "
                "then load the checkpoint at this one"
            )
        return resize_position(table, fitting[0], self.grid) if fitting and fitting[0] != self.grid else table

    def fitting_grids(self, patches, image_size):
        """Return the grids that so many patches may be of: of images of a size, or of a square or this Cell's own."""
        side = math.isqrt(max(patches, 0))
        grids = {(side, side), self.grid} if image_size is None else {grid_of(sides(image_size), self.stride)}
        return [grid for grid in grids if math.prod(grid) == patches > 0]


class PyramidVisionTransformer(Backbone):
    """See the module. Without a head there is no class token either, as in the published code for detection.

    Args:
        spatial: `spatial(channels, heads, reduction)` makes the attention of a block.
        image_size (tuple): (H, W) that the tables of positions are of; for images of other sizes they are interpolated.
        depths (sequence): blocks of each stage.
        width (int): channels per head, and of the first stage; 64 in the paper.
        position_size (int or pair): instead of `image_size`, what the tables of positions are of; the published code
            for segmentation and detection keeps those of the classifier, 224. None: `image_size`.

    Raises:
        ValueError: a side below 32, or depths and width that are not positive; an image with a side below 32, when
            the graph is compiled.
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
        width=64,
        position_size=None,
    ):
        check_depths(depths, len(WIDTHS))
        check_whole(width=width)
        super().__init__([width * heads for heads in WIDTHS], PATCHES[0], features_only)
        if min(image_size) < SMALLEST:
            raise ValueError(f"image_size must be at least {SMALLEST}, got {image_size[0]} x {image_size[1]}")
        position_size = image_size if position_size is None else sides(position_size)
        if min(position_size) < SMALLEST:
            raise ValueError(f"position_size must be at least {SMALLEST}, got {position_size[0]} x {position_size[1]}")
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        stride, embeddings, stages = 1, [], []
        for stage, heads in enumerate(WIDTHS):
            channels, stride = width * heads, stride * PATCHES[stage]
            last = stage == len(WIDTHS) - 1
            leading = int(last and not features_only)
            embeddings.append(Embedding(in_channels, channels, PATCHES[stage], position_size, stride, leading))
            cells = []
            for _ in range(depths[stage]):
                attention = spatial(channels, heads, REDUCTIONS[stage])
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
        _check_size(x.shape[2], x.shape[3])
        x1 = self.as_map(self.stage1(self.embedding1(x)))
        x2 = self.as_map(self.stage2(self.embedding2(x1)))
        x3 = self.as_map(self.stage3(self.embedding3(x2)))
        x4 = self.stage4(self.embedding4(x3))
        if self.features_only:
            return x1, x2, x3, self.as_map(x4)
        tokens, _ = x4
        return self.head(self.norm(tokens[:, 0]))

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

    def as_map(self, tokens_and_grid):
        """Tokens (B, H*W, C) and (H, W) -> (B, C, H, W)."""
        tokens, grid = tokens_and_grid
        return tokens.transpose(0, 2, 1).reshape(tokens.shape[0], tokens.shape[2], *grid)


def grid_of(image_size, stride):
    """Return how many whole patches of `stride` pixels an image has down and across."""
    return image_size[0] // stride, image_size[1] // stride


def resize_position(table, old, new):
    """Interpolate a table of positions, as the published code does for a checkpoint of another image size.

    Args:
        table (np.ndarray): (1, t + H*W, C), row by row after the t class tokens, which stay as they are.
        old, new (tuple): (H, W) of the grids, in patches.

    Returns:
        np.ndarray: (1, t + H*W, C) of the new grid, bilinear between the centres of patches, constant beyond the
        outermost.

    Raises:
        ValueError: a table too short for its grid.
    """
    before = table.shape[1] - math.prod(old)
    if before < 0:
        raise ValueError(f"a table of {table.shape[1]} positions cannot hold a grid of {old[0]} x {old[1]}")
    grid = interpolated(table[0, before:].reshape(*old, -1), new, linear)
    return np.concatenate([table[:, :before], grid.reshape(1, math.prod(new), -1)], axis=1)


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
    (r"\.attn\.(q|kv|proj)\.weight$", r".attn.\1.weight:linear"),
    *LAYER_NORMS,
)

# And mmsegmentation and mmdetection.
OPENMMLAB = (
    (r"^embedding(\d)\.(projection|norm)\.", lambda m: f"layers.{int(m[1]) - 1}.0.{m[2]}."),
    (r"^embedding(\d)\.position$", lambda m: f"layers.{int(m[1]) - 1}.1.0.pos_embed"),
    (r"^stage(\d)\.(\d+)\.", lambda m: f"layers.{int(m[1]) - 1}.1.{int(m[2]) + 1}."),
    (r"\.attention\.qkv\.query\.weight$", ".attn.attn.in_proj_weight[0:1/3]:linear"),
    (r"\.attention\.qkv\.query\.bias$", ".attn.attn.in_proj_bias[0:1/3]"),
    (r"\.attention\.qkv\.key_value\.weight$", ".attn.attn.in_proj_weight[1:3/3]:linear"),
    (r"\.attention\.qkv\.key_value\.bias$", ".attn.attn.in_proj_bias[1:3/3]"),
    (r"\.attention\.qkv\.reduce\.", ".attn.sr."),
    (r"\.attention\.qkv\.norm\.", ".attn.norm."),
    (r"\.attention\.attention\.projection\.weight$", ".attn.attn.out_proj.weight:linear"),
    (r"\.attention\.attention\.projection\.bias$", ".attn.attn.out_proj.bias"),
    (r"\.mlp\.fc1\.weight$", ".ffn.layers.0.weight:conv1x1"),
    (r"\.mlp\.fc2\.weight$", ".ffn.layers.3.weight:conv1x1"),
    (r"\.mlp\.fc1\.bias$", ".ffn.layers.0.bias"),
    (r"\.mlp\.fc2\.bias$", ".ffn.layers.3.bias"),
    *LAYER_NORMS,
)
