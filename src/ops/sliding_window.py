# SPDX-License-Identifier: Apache-2.0
"""Sliding-window self-attention (paper, section 3.2; stand-alone self-attention), exact, as block matmuls.

Each query attends the k x k window around it, padded by reflection. Cut into blocks of queries, the map needs two
batched matmuls per layer: a block of Q queries against the S distinct pixels its windows cover. Which of those a query
sees, and how often, is a bias of the logits, the log-multiplicity:

    logits = query @ key^T + bias        bias = [row and column one-hot of the query] @ [log-multiplicity of the key]^T

The paper's logit is q.(k_j + p_i - p_j) with the position encoding p = W_p (x, y). The part q.p_i is the same for every
key, so softmax drops it (and the bias of p with it): what remains is a key k_j - p_j.
"""

from functools import cached_property

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.ops.auto_generate import SoftmaxBackward

from src.ops.fused import MOST_STRIDE, FusedAttention, TwoForms
from src.ops.gather_rows import GatherRows
from src.ops.neighbourhood import window_blocks
from src.ops.swap_axes import SwapAxes


@ops.constexpr
def _constants(height, width, kernel, stride, dilation, channels):
    """The `Blocks` of a map as tensors, made while the graph is compiled."""
    if height is None or width is None:
        raise ValueError("sliding-window attention needs the height and width of its input when the graph is compiled")
    blocks = window_blocks(height, width, kernel, stride, dilation, channels)
    return (
        blocks.count,
        _copies(blocks.query, blocks.query_places),
        _copies(blocks.key, blocks.key_places),
        _copies(blocks.output, blocks.output_places),
        Tensor(np.broadcast_to(blocks.query_features, (blocks.count, *blocks.query_features.shape)).copy()),
        Tensor(blocks.key_features),
        Tensor(-blocks.location),
    )


def _copies(index, places):
    """What `GatherRows` takes, and whether there are gaps; None where every row is copied once, in order."""
    if np.array_equal(index, np.arange(places.shape[1])):
        return None
    return Tensor(index), Tensor(places), bool((places == len(index)).any())


class BlockAttention(nn.Cell):
    """softmax(query @ key^T + bias) @ value.

    Inputs: query (M, Q, d) already scaled, key (M, S, d), value (M, S, d), bias (n, Q, S) float32 with M a multiple of
    n. Outputs: (M, Q, d), and the weights (M, Q, S) that the gradient uses again. The bias is constant and gets none.

    The gradient is written out because on CPU the softmax's own makes four passes over the weights where two are
    enough: with delta = sum(dout * out), dlogits = weights * (dout @ value^T - delta). Elsewhere that is one kernel.
    """

    def __init__(self):
        super().__init__()
        self.softmax = ops.Softmax(-1)
        # Not `+`: of two shapes, on CPU it keeps a tensor as large as the sum for the life of the graph.
        self.add_to_each = ops.BiasAdd()
        self.matmul = ops.BatchMatMul()
        self.matmul_transposed = ops.BatchMatMul(transpose_b=True)
        self.transposed_matmul = ops.BatchMatMul(transpose_a=True)
        self.softmax_gradient = None if ms.get_context("device_target") == "CPU" else SoftmaxBackward()

    def construct(self, query, key, value, bias):
        # Softmax in float32 whatever the rest computes in, here as in all of src.ops.
        logits = self.matmul_transposed(query, key).astype(mstype.float32)
        bias = bias.astype(mstype.float32).reshape(-1)
        biased = self.add_to_each(logits.reshape(-1, bias.size), bias)
        weights = self.softmax(biased.reshape(logits.shape)).astype(value.dtype)
        return self.matmul(weights, value), weights

    def bprop(self, query, key, value, bias, out, dout):
        # With amp_level "auto" each of these may have come in another type.
        attended, weights, dout = out[0].astype(value.dtype), out[1].astype(value.dtype), dout[0].astype(value.dtype)
        dlogits = self.dlogits(weights, self.matmul_transposed(dout, value), attended, dout)
        dquery = self.matmul(dlogits, key.astype(value.dtype)).astype(query.dtype)
        dkey = self.transposed_matmul(dlogits, query.astype(value.dtype)).astype(key.dtype)
        dvalue = self.transposed_matmul(weights, dout)
        return dquery, dkey, dvalue, ops.zeros_like(bias)

    def dlogits(self, weights, dweights, attended, dout):
        if self.softmax_gradient is not None:
            return self.softmax_gradient(dweights, weights, -1)
        delta = (dout * attended).sum(-1).astype(weights.dtype).reshape(-1)
        return weights * self.add_to_each(dweights.reshape(1, -1, dweights.shape[2]), -delta).reshape(weights.shape)


class SlidingWindowAttention(TwoForms):
    """Attention of each pixel over the kernel x kernel window around it, padded by reflection.

    Args:
        channels (int): C of each of query, key and value; divisible by `heads`.
        heads (int): N; each has d = C / N channels.
        kernel (int): side of the window, odd.
        stride (int): step between queries; keys and values keep every pixel.
        dilation (int): step between the pixels of a window.

    Inputs:
        qkv (B, 3C, H, W): query, key and value, each with its channels head by head. Any H, W >= 1, known when the
        graph is compiled.

    Outputs:
        (B, C, ceil(H / stride), ceil(W / stride)).

    Raises:
        ValueError: sizes that cannot work, when the Cell is built; unknown H or W, when its graph is compiled.
    """

    def __init__(self, channels, heads=4, kernel=7, stride=1, dilation=1):
        super().__init__()
        self.channels, self.heads, self.head_channels = channels, heads, channels // heads
        self.kernel, self.stride, self.dilation = kernel, stride, dilation
        self.position = nn.Dense(2, self.head_channels)  # W_p; its bias cancels and is kept only for published weights
        self.to_positions = ops.MatMul(transpose_b=True)
        self.split = ops.Split(1, 3)
        self.swap = SwapAxes()
        self.gather, self.gather_some = GatherRows(), GatherRows(gaps=True)
        self.bias = ops.BatchMatMul(transpose_b=True)
        self.attend = BlockAttention()
        self.can_be_fused = stride <= MOST_STRIDE

    @cached_property
    def kernels(self):
        return FusedAttention(self.kernel, self.stride, self.dilation)

    def construct(self, qkv):
        return self.kernels(qkv, self.position.weight) if self.is_fused else self.portable(qkv)

    def portable(self, qkv):
        batch, _, height, width = qkv.shape
        n, queries, keys, outputs, query_features, key_features, negative_location = _constants(
            height, width, self.kernel, self.stride, self.dilation, self.head_channels
        )
        d, maps = self.head_channels, batch * self.heads

        # Pixel by pixel, (maps, H*W, d).
        rows = self.swap(qkv.reshape(3 * maps, d, height * width)).reshape(batch, 3, -1)
        query, key, value = (part.reshape(maps, height * width, d) for part in self.split(rows))
        # Plus the negative: the gradient of a difference is one more pass over the map.
        offset = self.to_positions(negative_location, self.position.weight.astype(mstype.float32))
        key = key + offset.astype(key.dtype)

        # Block by block, (maps * n, Q or S, d).
        query = self.copy(query, queries).reshape(maps * n, -1, d) * d**-0.5
        key = self.copy(key, keys).reshape(maps * n, -1, d)
        value = self.copy(value, keys).reshape(maps * n, -1, d)
        # ops.depend: without it the compiler stores the product in the graph and in exported files.
        bias = ops.stop_gradient(self.bias(ops.depend(query_features, qkv), key_features))
        out = self.attend(query, key, value, bias)[0]

        out = self.swap(self.copy(out.reshape(maps, -1, d), outputs))
        return out.reshape(batch, self.channels, -(-height // self.stride), -(-width // self.stride))

    def copy(self, rows, copies):
        """Gather, with the Cell that the gradient needs."""
        if copies is None:
            return rows
        index, places, has_gaps = copies
        return self.gather_some(rows, index, places) if has_gaps else self.gather(rows, index, places)

    def multiply_adds(self, input_shape, output_shape):
        """Of the weights and their use on the values, k*k pixels per query, as the paper counts them."""
        return 2 * self.kernel**2 * output_shape[0] * output_shape[1] * output_shape[2] * output_shape[3]
