# SPDX-License-Identifier: Apache-2.0
"""Sliding-window self-attention (paper, section 3.2; stand-alone self-attention), exact, as block matmuls.

Each query attends the k x k window around it, padded by reflection. Cut into blocks of queries, the map needs two
batched matmuls per layer: a block of Q queries against the S distinct pixels its windows cover. What depends on the
window rides along in the first of them, as extra channels of queries and keys:

    logits = [query, row and column one-hot, -W_p^T query] @ [key, log(multiplicity), (x, y)]^T

The last pair is the positional encoding. The paper's logit is q.(k_j + p_i - p_j) with p = W_p (x, y); q.p_i is the
same for every key, so softmax drops it (and the bias of p with it), and -q.p_j = (-W_p^T q).(x, y)_j.
"""

from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype

from src.ops.gather_rows import GatherRows
from src.ops.neighbourhood import window_blocks


@ops.constexpr
def _constants(height, width, kernel, stride, dilation, channels):
    """The `Blocks` of a map as tensors, made while the graph is compiled."""
    if height is None or width is None:
        raise ValueError("sliding-window attention needs the height and width of its input when the graph is compiled")
    blocks = window_blocks(height, width, kernel, stride, dilation, channels)
    return (
        blocks.grid,
        Tensor(blocks.key),
        Tensor(blocks.places),
        Tensor(blocks.query_features[None]),
        Tensor(blocks.key_features),
    )


class BlockAttention(nn.Cell):
    """softmax([query, query_features] @ [key, key_features]^T) @ value, one matmul each.

    Inputs: query (M, Q, d) already scaled, query_features (M, Q, f), key (M, S, d), key_features (M, S, f),
    value (M, S, d). Outputs: (M, Q, d), and the weights (M, Q, S) and widened keys that the gradient uses again.

    The gradient is written out because the softmax's own makes four passes over the weights where one is enough: with
    delta = sum(dout * out), dlogits = weights * ([dout, -delta] @ [value, 1]^T).
    """

    def __init__(self):
        super().__init__()
        self.softmax = ops.Softmax(-1)
        self.concat = ops.Concat(-1)
        self.matmul = ops.BatchMatMul()
        self.matmul_transposed = ops.BatchMatMul(transpose_b=True)
        self.transposed_matmul = ops.BatchMatMul(transpose_a=True)

    def construct(self, query, query_features, key, key_features, value):
        keys = self.concat((key, key_features))
        logits = self.matmul_transposed(self.concat((query, query_features)), keys)
        # Softmax in float32 whatever the rest computes in, here as in all of src.ops.
        weights = self.softmax(logits.astype(mstype.float32)).astype(value.dtype)
        return self.matmul(weights, value), weights, keys

    def bprop(self, query, query_features, key, key_features, value, out, dout):
        # With amp_level "auto" each of these may have come in another type.
        attended, weights, keys = out[0].astype(value.dtype), out[1].astype(value.dtype), out[2].astype(value.dtype)
        dout = dout[0].astype(value.dtype)
        delta = (dout * attended).sum(-1, keepdims=True).astype(value.dtype)
        values = self.concat((value, ops.ones_like(value[..., :1])))
        dlogits = weights * self.matmul_transposed(self.concat((dout, -delta)), values)
        dqueries = self.matmul(dlogits, keys).astype(query.dtype)
        d = query.shape[-1]
        dkey = self.transposed_matmul(dlogits, query.astype(value.dtype)).astype(key.dtype)
        dvalue = self.transposed_matmul(weights, dout)
        return dqueries[..., :d], dqueries[..., d:], dkey, ops.zeros_like(key_features), dvalue


class SlidingWindowAttention(nn.Cell):
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
        self.gather = GatherRows()
        self.attend = BlockAttention()

    def construct(self, qkv):
        batch, _, height, width = qkv.shape
        grid, index, places, query_features, key_features = _constants(
            height, width, self.kernel, self.stride, self.dilation, self.head_channels
        )
        c, d, maps = self.channels, self.head_channels, batch * self.heads
        n = grid[0] * grid[2]

        query = self.cut(qkv[:, :c, :: self.stride, :: self.stride], grid) * d**-0.5
        key = self.windows(qkv[:, c : 2 * c], index, places, n)
        value = self.windows(qkv[:, 2 * c :], index, places, n)

        position = ops.matmul(query, -self.position.weight.astype(query.dtype))
        # ops.depend: without it the compiler folds the repeated copies into the graph and into exported files.
        query_features = ops.tile(ops.depend(query_features, qkv).astype(query.dtype), (maps * n, 1, 1))
        key_features = ops.tile(ops.depend(key_features, qkv).astype(query.dtype), (maps, 1, 1))
        out, _, _ = self.attend(query, ops.concat((query_features, position), -1), key, key_features, value)
        return self.join(out, grid, -(-height // self.stride), -(-width // self.stride))

    def multiply_adds(self, input_shape, output_shape):
        """Of the weights and their use on the values, k*k pixels per query, as the paper counts them."""
        return 2 * self.kernel**2 * output_shape[0] * output_shape[1] * output_shape[2] * output_shape[3]

    def cut(self, query, grid):
        """(B, C, H', W') -> (B*N*n, Q, d), padded to whole blocks."""
        n_r, t_r, n_c, t_c = grid
        below, right = n_r * t_r - query.shape[2], n_c * t_c - query.shape[3]
        if below + right > 0:
            query = ops.Pad(((0, 0), (0, 0), (0, below), (0, right)))(query)
        query = query.reshape(-1, self.head_channels, n_r, t_r, n_c, t_c).transpose(0, 2, 4, 3, 5, 1)
        return query.reshape(-1, t_r * t_c, self.head_channels)

    def windows(self, maps, index, places, n):
        """(B, C, H, W) -> (B*N*n, S, d): the keys or values that each block attends."""
        rows = maps.reshape(-1, self.head_channels, maps.shape[2] * maps.shape[3]).transpose(0, 2, 1)
        return self.gather(rows, index, places).reshape(-1, index.shape[0] // n, self.head_channels)

    def join(self, blocks, grid, height, width):
        """(B*N*n, Q, d) -> (B, C, H', W'), the inverse of `cut`."""
        n_r, t_r, n_c, t_c = grid
        blocks = blocks.reshape(-1, n_r, n_c, t_r, t_c, self.head_channels).transpose(0, 5, 1, 3, 2, 4)
        maps = blocks.reshape(-1, self.channels, n_r * t_r, n_c * t_c)
        if n_r * t_r > height or n_c * t_c > width:
            # A tensor's [:height, :width] takes ten times as long on CPU.
            maps = ops.slice(maps, (0, 0, 0, 0), (maps.shape[0], self.channels, height, width))
        return maps
