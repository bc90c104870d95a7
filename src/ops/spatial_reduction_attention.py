# SPDX-License-Identifier: Apache-2.0
"""Attention of every pixel over a spatially reduced map, and ACmix around it (Wang et al., *PVT*, ICCV 2021).

    stage I    tokens -> query on the H x W grid; key and value on the H/r x W/r grid that an r x r convolution makes
    stage II   attention: each query over all keys                            one softmax, no window
               convolution: of query, key and value, each key and value repeated over the r x r queries it stands for

Tokens come with the grid they lie on, (H, W), which is known when a graph is compiled: a Cell takes any. H and W need
not be multiples of r; what no r x r patch covers below and to the right has no key, and goes with the nearest that is.

Some tokens, as a class token, lie before those of the grid. They attend and are attended like any other. A convolution
has no place for them; it gives them the mean over all places, so that they hear of both paths.
"""

from functools import cached_property

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import TruncatedNormal

from src.ops.acmix import ConvolutionPath, Mix
from src.ops.fused import FusedReducedConvolution, TwoForms


class ReducedProjection(nn.Cell):
    """Stage I: tokens (B, T, C) and (H, W) -> query (B, C, 1, T), key and value (B, 2C, 1, M), and (H, W).

    T is t + H*W; M is (H // r) * (W // r) for a reduction by r > 1, and T for r = 1. Channels come before places, as
    the convolution reads them.
    """

    def __init__(self, channels, reduction):
        super().__init__()
        self.reduction = reduction
        self.query = _pointwise(channels, channels)
        self.key_value = _pointwise(channels, 2 * channels)
        if reduction > 1:
            self.reduce = nn.Conv2d(channels, channels, reduction, reduction, pad_mode="valid", has_bias=True)
            self.norm = nn.LayerNorm((channels,), epsilon=1e-5)

    def construct(self, tokens_and_grid):
        tokens, grid = tokens_and_grid
        maps = in_a_row(tokens)
        query = self.query(maps)
        if self.reduction > 1:
            batch, channels = maps.shape[:2]
            maps = self.reduce(maps.reshape(batch, channels, *grid))
            maps = in_a_row(self.norm(maps.reshape(batch, channels, -1).transpose(0, 2, 1)))
        return query, self.key_value(maps), grid


def _pointwise(in_channels, out_channels):
    return nn.Conv2d(in_channels, out_channels, 1, has_bias=True, weight_init=TruncatedNormal(0.02), bias_init="zeros")


def in_a_row(tokens):
    """Tokens (B, T, C) -> a map of one row of them, (B, C, 1, T)."""
    return tokens.transpose(0, 2, 1).expand_dims(2)


class HeadAttention(nn.Cell):
    """value @ softmax(query^T @ key / sqrt(d))^T: key and value (B, 2N, d, M), query (B, N, d, L) -> (B, N, d, L)."""

    def __init__(self):
        super().__init__()
        # Channels stay before places: the flags spare the transposes.
        self.transposed_matmul = ops.BatchMatMul(transpose_a=True)
        self.matmul_transposed = ops.BatchMatMul(transpose_b=True)
        self.softmax = ops.Softmax(-1)
        self.split = ops.Split(1, 2)

    def construct(self, key_value, query):
        key, value = self.split(key_value)
        # Keys are the fewer: scaling them takes less than scaling queries.
        weights = self.softmax(self.transposed_matmul(query, key * key.shape[2] ** -0.5).astype(mstype.float32))
        return self.matmul_transposed(value, weights.astype(query.dtype))

    def multiply_adds(self, input_shape, output_shape):
        """Of the weights and their use on the values."""
        batch, heads, channels, length = output_shape
        return 2 * batch * heads * length * input_shape[3] * channels


class GlobalAttention(nn.Cell):
    """Stage II of attention, every query over all keys: what `ReducedProjection` gives -> (B, C, 1, T)."""

    def __init__(self, channels, heads):
        super().__init__()
        self.heads, self.head_channels = heads, channels // heads
        self.attend = HeadAttention()
        self.projection = _pointwise(channels, channels)

    def construct(self, projected):
        query, key_value, _ = projected
        out = self.attend(self.by_head(key_value), self.by_head(query))
        return self.projection(out.reshape(query.shape))

    def by_head(self, maps):
        """(B, n * d, 1, L) -> (B, n, d, L)."""
        return maps.reshape(maps.shape[0], -1, self.head_channels, maps.shape[3])


class FoldedConvolutionPath(ConvolutionPath):
    """The same path as one grouped convolution whose kernel is the product of `fc` and the shift's, also in training.

    That moves fewer maps through memory where a slot has fewer pieces than taps. Slices have no kernel to fold.
    """

    def __init__(self, pieces, slots, channels, kernel, shift):
        super().__init__(pieces, slots, channels, kernel, shift=shift)
        self.is_folded = pieces < self.taps and shift != "slice"
        piece_by_piece = np.arange(pieces * slots, dtype=np.int32).reshape(pieces, slots)
        self.pieces_of_slots = Tensor(piece_by_piece.T.reshape(-1))
        self.pieces_back = Tensor(np.argsort(piece_by_piece.T.reshape(1, -1)).astype(np.int32))

    @property
    def is_whole(self):
        return self.is_fused or self.is_folded

    def product(self):
        """(C, 3N, k, k): `fc` and the shift as the weight of one convolution of a slot's pieces."""
        layer, weight = self.fc.weight.reshape(self.taps, self.pieces), self.shift.weight
        product = ops.matmul(layer.T, weight.reshape(-1, self.taps, self.taps))
        return product.reshape(-1, self.pieces, *weight.shape[2:])

    def portable(self, maps):
        if not self.is_folded:
            return ConvolutionPath.portable(self, maps)
        batch, channels, height, width = maps.shape
        maps = self.gather(maps.reshape(batch, channels, height * width), self.pieces_of_slots, self.pieces_back)
        maps = maps.reshape(batch, channels, height, width)
        weight = self.product().astype(maps.dtype)
        return ops.conv2d(maps, weight, None, 1, "pad", weight.shape[2] // 2, 1, self.slots)


class GridConvolution(TwoForms):
    """Stage II of the convolution: what `ReducedProjection` gives -> (B, C, 1, T)."""

    def __init__(self, channels, heads, reduction, kernel, shift):
        super().__init__()
        self.reduction = reduction
        self.path = FoldedConvolutionPath(3 * heads, channels // heads, channels, kernel, shift)
        # Without a reduction there is one map of all pieces, and the path has a kernel for that itself.
        self.can_be_fused = reduction > 1 and self.path.can_be_fused

    @cached_property
    def kernels(self):
        return FusedReducedConvolution(self.path.pieces, self.path.shift.kernel, self.reduction)

    def construct(self, projected):
        query, key_value, (height, width) = projected
        r = self.reduction
        batch, channels, _, length = query.shape
        before = length - height * width
        if before > 0:
            query, key_value = query[..., before:], key_value[..., before:]
        query = query.reshape(batch, channels, height, width)
        key_value = key_value.reshape(batch, 2 * channels, height // r, width // r)
        maps = self.fused(query, key_value) if self.is_fused else self.portable(query, key_value)
        maps = maps.reshape(batch, channels, 1, height * width)
        if before > 0:
            mean = ops.tile(maps.mean(3, keep_dims=True), (1, 1, 1, before))
            maps = ops.concat((mean, maps), 3)
        return maps

    def fused(self, query, key_value):
        """Reduced keys and values are read where they lie."""
        return self.kernels(query, key_value, self.path.fc.weight, self.path.shift.weight)

    def portable(self, query, key_value):
        if self.reduction > 1:
            key_value = self.repeated(key_value, query.shape[2], query.shape[3])
        return self.path(ops.concat((query, key_value), 1))

    def repeated(self, maps, height, width):
        """(B, C, H // r, W // r) -> (B, C, H, W), each value r x r times and the last once more for each pixel left.

        On CPU faster than `Tile` or a resize.
        """
        batch, channels, rows, columns = maps.shape
        r = self.reduction
        maps = ops.concat([maps.reshape(batch, channels, -1, 1)] * r, 3).reshape(batch, channels, rows, columns * r)
        if width % r > 0:
            maps = ops.concat([maps] + [maps[..., -1:]] * (width % r), 3)
        maps = ops.concat([maps] * r, 3).reshape(batch, channels, rows * r, width)
        if height % r > 0:
            maps = ops.concat([maps] + [maps[:, :, -1:]] * (height % r), 2)
        return maps


class SpatialReductionAttention(Mix):
    """ACmix with global attention over spatially reduced keys and values; with paths="attention" that attention alone.

    Args:
        channels (int): C, divisible by `heads`.
        heads (int): N.
        reduction (int): r.
        paths (str): "both", "attention" or "convolution".
        kernel_conv (int): k of the convolution, odd.
        shift (str): of the shift, see `ShiftSum`.

    Inputs: tokens (B, t + H*W, C), the grid row by row, and (H, W), as a tuple of two; t may be above 0 only where
        r = 1. Outputs: tokens (B, t + H*W, C).

    Raises:
        ValueError: an argument that cannot work, named.
    """

    def __init__(self, channels, heads, reduction=1, *, paths="both", kernel_conv=3, shift="learnable"):
        if channels % heads:
            raise ValueError(f"channels={channels} must be divisible by heads={heads}")
        super().__init__(
            ReducedProjection(channels, reduction),
            GlobalAttention(channels, heads),
            GridConvolution(channels, heads, reduction, kernel_conv, shift),
            paths,
        )

    def construct(self, x):
        out = super().construct(x)
        return out.reshape(*out.shape[:2], -1).transpose(0, 2, 1)
