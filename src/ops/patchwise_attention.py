# SPDX-License-Identifier: Apache-2.0
"""Patchwise self-attention (Zhao, Jia and Koltun, *Exploring Self-attention for Image Recognition*, CVPR 2020).

The weights of a pixel come from its query and all the keys of its k x k neighbourhood at once, through two linear
layers and without softmax; so a weight may depend on more than its own key. Each weight serves `share` value channels.

Padding by reflection and the neighbourhoods are gathers of rows. The weighted sum is a batched matmul: a row of the map
is cut into segments of T queries, which together see k rows of T + k - 1 values. In a matrix of T rows the weights of a
query are k runs of k numbers, one place further right than those of the query before. Rows that all start at the left,
but are one number longer, hold the same numbers in the same order. So this takes zeros behind each run, and to read all
of it in shorter rows.
"""

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.ops.gather_rows import GatherRows
from src.ops.neighbourhood import inverse, reflect
from src.ops.padded import padded
from src.ops.split_sizes import SplitSizes

# Queries in a segment: more of them waste zeros in the matrix, fewer copy each value more often. Below 16, as many as
# the matrix unit of an Ascend has rows.
SEGMENT = 14


def _taps(size, kernel):
    """(kernel, size): the pixel that tap t of the window around a pixel falls on."""
    return reflect(np.arange(size) + np.arange(kernel)[:, None] - kernel // 2, size)


def _with_inverse(index, size, used=None):
    index = index.reshape(-1).astype(np.int32)
    used = np.ones(len(index), bool) if used is None else np.broadcast_to(used, index.shape)
    return Tensor(index), Tensor(inverse(index, used, size))


@ops.constexpr
def _neighbours(channels, height, width, kernel):
    """Index tensors of the two gathers that lay out the neighbourhoods, made while the graph is compiled."""
    # One tap more than there are, which no row takes: its gradient is the zero of pixels with fewer copies than others.
    taps = kernel + 1
    columns = np.concatenate([_taps(width, kernel), np.zeros((1, width), int)])
    is_taken = np.arange(taps * width) < kernel * width
    # Source rows: (c, y) of the query, then (c, y, tap in x) of the key.
    query = np.arange(channels * height)
    key = np.arange(channels * height * taps).reshape(channels, height, taps)[..., :kernel] + len(query)
    key = key[:, _taps(height, kernel)].transpose(0, 1, 3, 2)
    rows = np.concatenate([query, key.reshape(-1)])
    return _with_inverse(columns, width, is_taken), _with_inverse(rows, channels * height * (1 + taps))


@ops.constexpr
def _segments(height, width, kernel):
    """T, and the pixels that each segment of T queries sees, with their inverse."""
    count = -(-width // SEGMENT)
    length = -(-width // count)
    rows = _taps(height, kernel).T[:, None, :, None]
    # The last segment may reach beyond the map; what lies there belongs to queries that are cut off.
    first = np.arange(count)[:, None] * length - kernel // 2
    columns = reflect(first + np.arange(length + kernel), width)[None, :, None, :]
    # The zeros behind the last run are one less than the others, and one value of each run is seen by no query.
    values = (rows * width + columns).reshape(height, count, -1)[..., :-1]
    seen = np.tile(np.arange(values.shape[-1]) % (length + kernel) < length + kernel - 1, height * count)
    return length, _with_inverse(values, height * width, seen)


class PatchwiseAttention(nn.Cell):
    """Aggregate the k x k neighbourhood of each pixel by weights made from its query and all its keys.

    Args:
        query_channels (int): d, channels of the query and of the key.
        channels (int): C of the value, divisible by `share`; channel c has weight c % (C / share).
        kernel (int): k, odd.
        share (int): how many value channels have one weight.

    Inputs:
        qkv (B, 2d + C, H, W): query, key, value. Any H, W >= 1, known when the graph is compiled.

    Outputs:
        (B, C, H, W).
    """

    def __init__(self, query_channels, channels, kernel=7, share=8):
        super().__init__()
        patch, weights = query_channels * (kernel * kernel + 1), channels // share
        self.query_channels, self.kernel, self.share, self.weights = query_channels, kernel, share, weights
        self.norm1, self.linear1 = nn.BatchNorm2d(patch), nn.Conv2d(patch, weights, 1)
        self.norm2 = nn.BatchNorm2d(weights)
        self.linear2 = nn.Conv2d(weights, weights * kernel * kernel, 1, has_bias=True)
        self.relu = nn.ReLU()
        self.split = SplitSizes(1, is_exported=True)
        self.gather, self.gather_some = GatherRows(), GatherRows(gaps=True)
        self.matmul = ops.BatchMatMul()
        self.matmul_transposed = ops.BatchMatMul(transpose_b=True)
        self.on_cpu = ms.get_context("device_target") == "CPU"

    def construct(self, qkv):
        d = self.query_channels
        query, key, value = self.split(qkv, (d, d, self.weights * self.share))
        patch = self.relu(self.norm1(self.patches(query, key)))
        hidden = self.relu(self.norm2(self.linear1(patch)))
        return self.aggregate(hidden, value)

    def multiply_adds(self, input_shape, output_shape):
        """Of the second linear layer and the weighted sum; `linear1` counts itself."""
        pixels = output_shape[0] * output_shape[2] * output_shape[3]
        return pixels * self.kernel**2 * (self.weights**2 + output_shape[1])

    def patches(self, query, key):
        """The d channels of the query, then each channel of the key at k*k taps: (B, d + d * k*k, H, W)."""
        batch, d, height, width = query.shape
        columns, rows = _neighbours(d, height, width, self.kernel)
        key = self.gather(key.reshape(-1, width), *columns).reshape(batch, -1, width)
        rows_of_both = ops.concat((query.reshape(batch, -1, width), key), 1)
        return self.gather_some(rows_of_both, *rows).reshape(batch, -1, height, width)

    def aggregate(self, hidden, value):
        """Weights from `hidden` (B, C / share, H, W), applied to the value (B, C, H, W)."""
        batch, weights, height, width = hidden.shape
        length, (index, places) = _segments(height, width, self.kernel)
        hidden = padded(hidden, 3, length)
        across, pitch = hidden.shape[3], self.kernel * (length + self.kernel)

        matrix = self.spaced_weights(hidden, length).astype(value.dtype).reshape(-1, length * pitch)
        matrix = matrix[:, : length * (pitch - 1)].reshape(-1, length, pitch - 1)

        value = value.reshape(batch, self.share, weights, height * width).transpose(2, 0, 3, 1)
        value = self.gather(value.reshape(weights * batch, height * width, self.share), index, places)
        out = self.matmul(matrix, value.reshape(-1, pitch - 1, self.share))
        out = out.reshape(weights, batch, height, across, self.share)
        if across > width:
            out = ops.slice(out, (0, 0, 0, 0, 0), (weights, batch, height, width, self.share))
        return out.transpose(1, 4, 0, 2, 3).reshape(batch, -1, height, width)

    def spaced_weights(self, hidden, length):
        """The weights of each pixel, a pixel to a row: k runs of k, with `length` zeros behind each.

        Of `hidden` (B, C / share, H, W), (C / share * B * H * W, k * (k + length)) for all weights one after another.
        """
        batch, weights, height, width = hidden.shape
        k = self.kernel
        if not self.on_cpu:
            runs = self.linear2(hidden).reshape(batch, weights, k * k, height * width).transpose(1, 0, 3, 2)
            return ops.Pad(((0, 0), (0, length)))(runs.reshape(-1, k)).reshape(-1, k * (k + length))
        # Here it takes a tenth of the time to let the matmul write the zeros, of which its kernel has some then; and to
        # give it the bias as the weights of one more channel, of ones.
        hidden = ops.concat((hidden, ops.ones_like(hidden[:, :1])), 1)
        hidden = hidden.transpose(0, 2, 3, 1).reshape(1, -1, weights + 1)
        kernel = ops.concat((self.linear2.weight.reshape(-1, weights), self.linear2.bias.reshape(-1, 1)), 1)
        kernel = ops.Pad(((0, 0), (0, length), (0, 0)))(kernel.reshape(-1, k, weights + 1)).astype(hidden.dtype)
        kernel = kernel.reshape(weights, -1, weights + 1)
        return self.matmul_transposed(ops.tile(hidden, (weights, 1, 1)), kernel).reshape(-1, k * (k + length))
