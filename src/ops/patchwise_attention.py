# SPDX-License-Identifier: Apache-2.0
"""Patchwise self-attention (Zhao, Jia and Koltun, *Exploring Self-attention for Image Recognition*, CVPR 2020).

The weights of a pixel come from its query and all the keys of its k x k neighbourhood at once, through two linear
layers and without softmax; so a weight may depend on more than its own key. Each weight serves `share` value channels.

Padding by reflection and the neighbourhoods are gathers of rows. The weighted sum is a batched matmul: a row of the map
is cut into segments of T queries, which together see L = k * (T + k - 1) values. The weights of a query fill a row of
k*k numbers in a T x L matrix, each row one place further right than the row above. A matrix whose rows all start at the
left, but are one number longer, holds the same numbers in the same order; so the second linear layer, its kernel filled
up with zeros, writes that matrix at once.
"""

import numpy as np
from mindspore import Tensor, nn, ops

from src.ops.gather_rows import GatherRows
from src.ops.neighbourhood import inverse, reflect

# Queries in a segment: more of them waste zeros in the matrix, fewer copy each value more often.
SEGMENT = 7


def _taps(size, kernel):
    """(kernel, size): the pixel that tap t of the window around a pixel falls on."""
    return reflect(np.arange(size) + np.arange(kernel)[:, None] - kernel // 2, size)


def _with_inverse(index, size):
    index = index.reshape(-1).astype(np.int32)
    return Tensor(index), Tensor(inverse(index, np.ones(len(index), bool), size))


@ops.constexpr
def _neighbours(channels, height, width, kernel):
    """Index tensors of the two gathers that lay out the neighbourhoods, made while the graph is compiled."""
    columns = _taps(width, kernel)
    # Source rows: (c, y) of the query, then (c, y, tap in x) of the key.
    query = np.arange(channels * height)
    key = np.arange(channels * height * kernel).reshape(channels, height, kernel) + len(query)
    key = key[:, _taps(height, kernel)].transpose(0, 1, 3, 2)
    rows = np.concatenate([query, key.reshape(-1)])
    return _with_inverse(columns, width), _with_inverse(rows, channels * height * (1 + kernel))


@ops.constexpr
def _segments(height, width, kernel):
    """T, and the pixels that each segment of T queries sees, with their inverse."""
    count = -(-width // SEGMENT)
    length = -(-width // count)
    rows = _taps(height, kernel).T[:, None, :, None]
    # The last segment may reach beyond the map; what lies there belongs to queries that are cut off.
    first = np.arange(count)[:, None] * length - kernel // 2
    columns = reflect(first + np.arange(length + kernel - 1), width)[None, :, None, :]
    return length, _with_inverse(rows * width + columns, height * width)


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
        self.gather = GatherRows(gaps=True)
        self.matmul = ops.BatchMatMul()
        self.matmul_transposed = ops.BatchMatMul(transpose_b=True)

    def construct(self, qkv):
        patch = self.relu(self.norm1(self.patches(qkv)))
        hidden = self.relu(self.norm2(self.linear1(patch)))
        return self.aggregate(hidden, qkv[:, 2 * self.query_channels :])

    def multiply_adds(self, input_shape, output_shape):
        """Of the second linear layer and the weighted sum; `linear1` counts itself."""
        pixels = output_shape[0] * output_shape[2] * output_shape[3]
        return pixels * self.kernel**2 * (self.weights**2 + output_shape[1])

    def patches(self, qkv):
        """The d channels of the query, then each channel of the key at k*k taps: (B, d + d * k*k, H, W)."""
        batch, _, height, width = qkv.shape
        d = self.query_channels
        columns, rows = _neighbours(d, height, width, self.kernel)
        query = qkv[:, :d].reshape(batch, -1, width)
        key = self.gather(qkv[:, d : 2 * d].reshape(-1, width), *columns).reshape(batch, -1, width)
        return self.gather(ops.concat((query, key), 1), *rows).reshape(batch, -1, height, width)

    def aggregate(self, hidden, value):
        """Weights from `hidden` (B, C / share, H, W), applied to the value (B, C, H, W)."""
        batch, weights, height, width = hidden.shape
        length, (index, places) = _segments(height, width, self.kernel)
        count = -(-width // length)
        seen = self.kernel * (length + self.kernel - 1)

        # The bias of the second linear layer rides along as one more channel, of ones.
        hidden = ops.concat((hidden, ops.ones_like(hidden[:, :1])), 1).astype(value.dtype)
        if count * length > width:
            hidden = ops.Pad(((0, 0), (0, 0), (0, 0), (0, count * length - width)))(hidden)
        hidden = hidden.transpose(0, 2, 3, 1).reshape(1, -1, weights + 1)
        kernel = self.spaced_kernel(length, seen + 1).astype(value.dtype)
        matrix = self.matmul_transposed(ops.tile(hidden, (weights, 1, 1)), kernel)
        matrix = matrix.reshape(weights * batch * height * count, length * (seen + 1))[:, : length * seen]

        value = value.reshape(batch, self.share, weights, height * width).transpose(2, 0, 3, 1)
        value = self.gather(value.reshape(weights * batch, height * width, self.share), index, places)
        out = self.matmul(matrix.reshape(-1, length, seen), value.reshape(-1, seen, self.share))
        out = out.reshape(weights, batch, height, count * length, self.share)
        if count * length > width:
            out = ops.slice(out, (0, 0, 0, 0, 0), (weights, batch, height, width, self.share))
        return out.transpose(1, 4, 0, 2, 3).reshape(batch, -1, height, width)

    def spaced_kernel(self, length, pitch):
        """The second linear layer, (C / share, pitch, C / share + 1), zeros between its k rows of taps and behind."""
        kernel = ops.concat((self.linear2.weight.reshape(-1, self.weights), self.linear2.bias.reshape(-1, 1)), 1)
        kernel = kernel.reshape(self.weights * self.kernel, self.kernel, self.weights + 1)
        kernel = ops.Pad(((0, 0), (0, length - 1), (0, 0)))(kernel).reshape(self.weights, -1, self.weights + 1)
        return ops.Pad(((0, 0), (0, pitch - kernel.shape[1]), (0, 0)))(kernel)
