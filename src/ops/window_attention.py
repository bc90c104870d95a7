# SPDX-License-Identifier: Apache-2.0
"""ACmix with attention in windows (Swin Transformer, Liu et al. 2021, arXiv 2103.14030; paper, section 4.5).

The map is cut into windows that do not overlap, and each pixel attends its own window; a learned bias tells how far
apart two pixels are. In every second block the map is first rolled by half a window, so that windows straddle the
borders of those before; pixels which only the roll made neighbours do not see each other. Convolution sees the rolled
map as a whole.
"""

import math

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common.initializer import TruncatedNormal, initializer

from src.ops.acmix import ConvolutionPath, Mix
from src.ops.gather_rows import GatherRows
from src.ops.interpolation import cubic, interpolated
from src.ops.padded import padded

# Added to the logit of a pair that must not see each other, as in the published code.
APART = -100.0


def relative_positions(window):
    """(T, T) int32, T = window**2: the row of the table for the offset of two pixels, numbered row by row."""
    row, column = np.divmod(np.arange(window * window), window)
    span = 2 * window - 1
    down, right = row[:, None] - row + window - 1, column[:, None] - column + window - 1
    return (down * span + right).astype(np.int32)


def roll_order(height, width, shift):
    """(H*W,) int32: the pixel that comes to each place when the map is rolled up and left by `shift`."""
    pixels = np.arange(height * width, dtype=np.int32).reshape(height, width)
    return np.roll(pixels, (-shift, -shift), (0, 1)).reshape(-1)


def roll_mask(height, width, window, shift):
    """(windows, 1, T, T) float32: `APART` for pairs of a window that come from different ends of the rolled map."""

    def part(size):
        place = np.arange(size)
        return (place >= size - window).astype(np.int32) + (place >= size - shift)

    parts = 3 * part(height)[:, None] + part(width)
    parts = parts.reshape(height // window, window, width // window, window).transpose(0, 2, 1, 3)
    parts = parts.reshape(-1, 1, window * window)
    return np.where(parts[..., None] == parts[..., None, :], 0, APART).astype(np.float32)


@ops.constexpr
def _mask(height, width, window, shift):
    return Tensor(roll_mask(height, width, window, shift))


@ops.constexpr
def _roll(height, width, shift):
    """The order of a rolled map and its inverse, as tensors made while the graph is compiled."""
    order = roll_order(height, width, shift)
    return Tensor(order), Tensor(np.argsort(order).astype(np.int32))


class WindowAttention(nn.Cell):
    """Attention of each pixel over its window, with relative position bias, and the output projection.

    Args:
        channels (int): C of each of query, key and value; divisible by `heads`.
        heads (int): N; each has d = C / N channels.
        window (int): side of a window.
        cyclic_shift (int): by how much the map has been rolled up and left, less than `window`.

    Inputs:
        qkv (B, 3C, H, W): query, key and value, each with its channels head by head; H and W whole windows, known when
        the graph is compiled.

    Outputs:
        (B, C, H, W).
    """

    def __init__(self, channels, heads, window=7, cyclic_shift=0):
        super().__init__()
        self.channels, self.heads, self.head_channels = channels, heads, channels // heads
        self.window, self.cyclic_shift = window, cyclic_shift
        table = initializer(TruncatedNormal(0.02), ((2 * window - 1) ** 2, heads))
        self.position = Parameter(table, name="position")
        self.position_of_pair = Tensor(relative_positions(window).reshape(-1))
        self.project = nn.Conv2d(
            channels, channels, 1, has_bias=True, weight_init=TruncatedNormal(0.02), bias_init="zeros"
        )
        self.split = ops.Split(0, 3)
        self.softmax = ops.Softmax(-1)
        # Windows keep their channels before their pixels, as the map does: the flags spare the transposes.
        self.transposed_matmul = ops.BatchMatMul(transpose_a=True)
        self.matmul_transposed = ops.BatchMatMul(transpose_b=True)

    def construct(self, qkv):
        batch, _, height, width = qkv.shape
        w, pixels = self.window, self.window * self.window
        rows, columns = height // w, width // w

        windows = qkv.reshape(batch, 3, self.channels, rows, w, columns, w).transpose(1, 0, 3, 5, 2, 4, 6)
        query, key, value = self.split(windows.reshape(-1, self.heads, self.head_channels, pixels))
        logits = self.transposed_matmul(query * self.head_channels**-0.5, key)
        logits = logits.reshape(batch, rows * columns, self.heads, pixels, pixels)
        weights = self.softmax(logits.astype(mstype.float32) + self.bias(height, width)).astype(value.dtype)
        out = self.matmul_transposed(value, weights.reshape(-1, self.heads, pixels, pixels))

        out = out.reshape(batch, rows, columns, self.channels, w, w).transpose(0, 3, 1, 4, 2, 5)
        return self.project(out.reshape(batch, self.channels, height, width))

    def bias(self, height, width):
        """(1 or windows, N, T, T): what the place of two pixels adds to their logit."""
        pixels = self.window * self.window
        bias = ops.gather(self.position.astype(mstype.float32), self.position_of_pair, 0).transpose(1, 0)
        bias = bias.reshape(1, self.heads, pixels, pixels)
        if self.cyclic_shift > 0:
            bias = bias + _mask(height, width, self.window, self.cyclic_shift)
        return bias

    def resized(self, table, image_size=None):
        """Return `position` of any window for this one, bicubic as the published code has it.

        Args:
            table (np.ndarray): ((2v - 1)**2, N) of windows of side v.
            image_size: not needed: the table's length tells its window.

        Raises:
            ValueError: a table of no window.
        """
        span, own = math.isqrt(table.shape[0]) if table.ndim == 2 else 0, 2 * self.window - 1
        if span % 2 == 0 or span * span != table.shape[0]:
            raise ValueError(
                f"a bias table of shape {table.shape} is of no window; of windows of {self.window} x {self.window}, "
                f"which this network has, it is of shape {(own * own, self.heads)}"
            )
        if span == own:
            return table
        return interpolated(table.reshape(span, span, -1), (own, own), cubic).reshape(own * own, -1)

    def multiply_adds(self, input_shape, output_shape):
        """Of the weights and their use on the values; the projection counts itself."""
        return 2 * self.window**2 * output_shape[0] * output_shape[1] * output_shape[2] * output_shape[3]


class WindowACmix(Mix):
    """ACmix with window attention, or with `paths="attention"` the attention of a plain Swin Transformer.

    Args:
        channels (int): C, divisible by `heads`.
        heads (int): N.
        window (int): side of a window.
        cyclic_shift (int): by how much the map is rolled up and left for both paths, and back after them.
        kernel_conv (int): k of the convolution, odd.
        paths (str): "both", or only "attention" or "convolution".
        shift (str): of the convolution, see `ShiftSum`.

    Inputs:
        x (B, H, W, C), channels last, any H, W >= 1: filled up with zeros to whole windows at the bottom and right.

    Outputs:
        (B, H, W, C).

    Raises:
        ValueError: channels that `heads` does not divide, an even `kernel_conv`, an unknown `paths` or `shift`.
    """

    def __init__(self, channels, heads, window=7, cyclic_shift=0, *, kernel_conv=3, paths="both", shift="learnable"):
        if channels % heads:
            raise ValueError(f"ACmix channels={channels} must be divisible by heads={heads}")
        super().__init__(
            nn.Conv2d(channels, 3 * channels, 1, has_bias=True, weight_init=TruncatedNormal(0.02), bias_init="zeros"),
            WindowAttention(channels, heads, window, cyclic_shift),
            ConvolutionPath(3 * heads, channels // heads, channels, kernel_conv, shift=shift, has_bias=True),
            paths,
        )
        self.window, self.cyclic_shift = window, cyclic_shift
        self.gather = GatherRows()

    def construct(self, x):
        batch, height, width, channels = x.shape
        x = padded(padded(x, 2, self.window), 1, self.window)
        rows, columns = x.shape[1:3]
        x = x.reshape(batch, rows * columns, channels)
        if self.cyclic_shift > 0:
            there, back = _roll(rows, columns, self.cyclic_shift)
            x = self.gather(x, there, back.reshape(1, -1))

        out = super().construct(x.transpose(0, 2, 1).reshape(batch, channels, rows, columns))

        out = out.reshape(batch, channels, rows * columns).transpose(0, 2, 1)
        if self.cyclic_shift > 0:
            out = self.gather(out, back, there.reshape(1, -1))
        out = out.reshape(batch, rows, columns, channels)
        if (rows, columns) != (height, width):
            out = ops.slice(out, (0, 0, 0, 0), (batch, height, width, channels))
        return out
