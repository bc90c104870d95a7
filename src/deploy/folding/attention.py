# SPDX-License-Identifier: Apache-2.0
"""The forms of attention for inference only: fed slot by slot with a scaled query, all they know before as constants.

Slot by slot means channels in the order (d, P): P pieces, of them N heads of query, N of key and N of value, and what
else the projection makes for the convolution.
"""

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype

from src.deploy.folding.norms import array, tensor
from src.ops.neighbourhood import OUTSIDE, window_blocks
from src.ops.window_attention import roll_mask

# What a key of a block costs, in numbers copied, whatever its length: onnxruntime copies row by row.
KEY_COST = 16

# Logits of an image that are computed at once, so that those of a batch too stay in the caches.
LOGITS = 400_000

# Logit below the highest at which a weight is negligible, and far from denormal. Of the logits' rank: onnxruntime adds
# a number of another rank ten times as slowly.
LOWEST = np.full((1, 1, 1, 1, 1), -60.0, np.float32)


@ops.constexpr
def _window_constants(height, width, kernel, stride, dilation, heads, position):
    """What sliding-window attention on maps of this size knows, as tensors made while the graph is compiled.

    Returns:
        tuple: what position takes from a key, (H*W, d); the blocks in portions, each the rows of its queries in
        (P * H*W, d), (N, n, Q), of its keys in (N * H*W, d) and of its values in (P * H*W, d), (N, n, S) both, and the
        bias of its logits, (n, Q, S); the rows of the outputs, (H'*W', N), in (N * n*Q, d); `LOWEST`.
    """
    if height is None or width is None:
        raise ValueError("sliding-window attention needs the height and width of its input when the graph is compiled")
    weight = np.array(position)
    blocks = window_blocks(height, width, kernel, stride, dilation, KEY_COST)
    query, key = (pixels.reshape(blocks.count, -1) for pixels in (blocks.query, blocks.key))
    bias = np.einsum("qf,nsf->nqs", blocks.query_features, blocks.key_features.reshape(*key.shape, -1))
    is_seen = (bias > OUTSIDE / 2).any((0, 1))  # gradients need more keys than queries see
    key, bias = key[:, is_seen], bias[:, :, is_seen]

    def rows(first, pixels):
        return Tensor((pixels + (first + np.arange(heads))[:, None, None] * height * width).astype(np.int32))

    count = min(-(-heads * bias.size // LOGITS), blocks.count)
    portions = [
        (rows(0, q), rows(0, k), rows(2 * heads, k), tensor(b))
        for q, k, b in zip(*(np.array_split(each, count) for each in (query, key, bias)))
    ]
    outputs = np.arange(heads) * query.size + blocks.output[:, None]
    return tensor(blocks.location @ weight.T), tuple(portions), Tensor(outputs.astype(np.int32)), Tensor(LOWEST)


class FoldedSlidingWindow(nn.Cell):
    """`SlidingWindowAttention` on (B, d * P, H, W), slot by slot, with a scaled query -> (B, C, H', W').

    Logits far below the highest of their query, as those of keys it does not see, are raised to `LOWEST`: their weight
    still vanishes beside 1, but is no denormal number, for which CPUs need ten times as long in softmax and products.

    Args:
        attention (SlidingWindowAttention): whose sizes and positions to take.
    """

    def __init__(self, attention):
        super().__init__()
        self.heads, self.slots = attention.heads, attention.head_channels
        self.kernel, self.stride, self.dilation = attention.kernel, attention.stride, attention.dilation
        self.position = tuple(map(tuple, attention.position.weight.asnumpy().tolist()))
        self.matmul = ops.BatchMatMul()
        self.matmul_transposed = ops.BatchMatMul(transpose_b=True)
        self.softmax = ops.Softmax(-1)
        self.highest = ops.ReduceMax(keep_dims=True)

    def construct(self, maps):
        batch, _, height, width = maps.shape
        position, portions, outputs, lowest = _window_constants(
            height, width, self.kernel, self.stride, self.dilation, self.heads, self.position
        )
        heads, d = self.heads, self.slots
        maps = maps.reshape(batch, d, -1, height * width).transpose(0, 2, 3, 1)
        keys = (maps[:, heads : 2 * heads] - position.astype(maps.dtype)).reshape(batch, -1, d)
        maps = maps.reshape(batch, -1, d)
        out = ()
        for query, key, value, bias in portions:
            query, key, value = ops.gather(maps, query, 1), ops.gather(keys, key, 1), ops.gather(maps, value, 1)
            logits = self.matmul_transposed(query, key).astype(mstype.float32) + bias
            logits = ops.maximum(logits, self.highest(logits, -1) + lowest)
            out += (self.matmul(self.softmax(logits).astype(value.dtype), value),)
        out = ops.concat(out, 2) if len(out) > 1 else out[0]
        out = ops.gather(out.reshape(batch, -1, d), outputs, 1)
        # Pixel by pixel and as four axes: onnxruntime makes this transpose a part of the next convolution's.
        out = out.reshape(batch, -(-height // self.stride), -(-width // self.stride), heads * d)
        return out.transpose(0, 3, 1, 2)


@ops.constexpr
def _roll_mask(height, width, window, shift):
    return Tensor(roll_mask(height, width, window, shift))


class FoldedWindowAttention(nn.Cell):
    """`WindowAttention` on (B, d * P, H, W), slot by slot, with a scaled query -> (B, C, H, W).

    Pixels come before channels: onnxruntime is slow at products whose first factor is transposed.

    Args:
        attention (WindowAttention): whose sizes and positions to take.
        project (nn.Cell): in place of its output projection.
    """

    def __init__(self, attention, project):
        super().__init__()
        self.heads, self.slots = attention.heads, attention.head_channels
        self.window, self.cyclic_shift = attention.window, attention.cyclic_shift
        self.pixels = attention.window**2
        table = array(attention.position)[attention.position_of_pair.asnumpy()]
        self.position = Parameter(tensor(table.T.reshape(self.heads, self.pixels, self.pixels)), name="position")
        self.project = project
        self.softmax = ops.Softmax(-1)
        self.matmul = ops.BatchMatMul()
        self.matmul_transposed = ops.BatchMatMul(transpose_b=True)

    def construct(self, maps):
        batch, _, height, width = maps.shape
        w, heads = self.window, self.heads
        rows, columns = height // w, width // w
        windows = maps.reshape(batch, self.slots, -1, rows, w, columns, w).transpose(0, 3, 5, 2, 4, 6, 1)
        windows = windows.reshape(batch, rows * columns, -1, self.pixels, self.slots)
        query, key, value = [windows[:, :, first : first + heads] for first in (0, heads, 2 * heads)]
        bias = self.position.astype(mstype.float32)
        if self.cyclic_shift > 0:
            bias = bias + _roll_mask(height, width, w, self.cyclic_shift)
        weights = self.softmax(self.matmul_transposed(query, key).astype(mstype.float32) + bias).astype(value.dtype)
        out = self.matmul(weights, value).reshape(batch, rows, columns, heads, w, w, self.slots)
        return self.project(out.transpose(0, 3, 6, 1, 4, 2, 5).reshape(batch, -1, height, width))


class FoldedGlobalAttention(nn.Cell):
    """`GlobalAttention` of a query that comes scaled.

    Places come before channels: onnxruntime is slow at products whose first factor is transposed.

    Args:
        attention (GlobalAttention): whose sizes to take.
        projection (nn.Cell): in place of its output projection.
    """

    def __init__(self, attention, projection):
        super().__init__()
        self.head_channels = attention.head_channels
        self.projection = projection
        self.matmul = ops.BatchMatMul()
        self.softmax = ops.Softmax(-1)

    def construct(self, projected):
        query, key_value, _ = projected
        channels = query.shape[1]
        key = self.by_head(key_value[:, :channels])
        value = self.by_head(key_value[:, channels:]).transpose(0, 1, 3, 2)
        weights = self.softmax(self.matmul(self.by_head(query).transpose(0, 1, 3, 2), key).astype(mstype.float32))
        out = self.matmul(weights.astype(value.dtype), value).transpose(0, 1, 3, 2)
        return self.projection(out.reshape(query.shape))

    def by_head(self, maps):
        """(B, n * d, 1, L) -> (B, n, d, L)."""
        return maps.reshape(maps.shape[0], -1, self.head_channels, maps.shape[3])


class PieceByPiece(nn.Cell):
    """Maps (B, d * P, H, W), slot by slot -> (B, pieces * d, H, W), the first of the P pieces one after the other."""

    def __init__(self, pieces, slots):
        super().__init__()
        self.pieces, self.slots = pieces, slots

    def construct(self, maps):
        batch, _, height, width = maps.shape
        maps = maps.reshape(batch, self.slots, -1, height * width)[:, :, : self.pieces]
        return maps.transpose(0, 2, 1, 3).reshape(batch, -1, height, width)


class SlotBySlot(nn.Cell):
    """Maps (B, P * d, H, W), piece by piece -> the same slot by slot."""

    def __init__(self, slots):
        super().__init__()
        self.slots = slots

    def construct(self, maps):
        batch, _, height, width = maps.shape
        maps = maps.reshape(batch, -1, self.slots, height * width)
        return maps.transpose(0, 2, 1, 3).reshape(batch, -1, height, width)
