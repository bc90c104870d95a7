# SPDX-License-Identifier: Apache-2.0
"""Which pixels a block of queries sees, and how often: the geometry of sliding-window attention.

Everything here is NumPy on sizes alone, run once when a graph is compiled. Rows and columns are independent, so
each axis is described on its own and the two are combined.

Padding by reflection only makes a query see some pixels twice. A softmax over the padded window therefore equals a
softmax over the distinct pixels with `log(multiplicity)` added to the logit, and that multiplicity is a product of a
row count and a column count. No map is ever padded, and every size down to 1x1 is covered.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

# Logit of a pixel outside the window. Twice this still fits float16, and exp() of it is an exact zero.
OUTSIDE = -1e4

# Blocks beyond this side waste more arithmetic on masked pairs than they save in copies.
LARGEST_BLOCK = 16


@dataclass(frozen=True)
class Axis:
    """One axis cut into `n` blocks of `T` queries that attend `S` pixels.

    Attributes:
        key: (n, S) pixels that some query of the block sees, filled up with pixel 0.
        count: (n, T, S) how often the window of the query holds the pixel; 0 where it does not reach.
    """

    key: np.ndarray
    count: np.ndarray


@dataclass(frozen=True)
class Blocks:
    """A map cut into n blocks of Q queries, each with the S keys it attends. Pixels are numbered row by row.

    Each array of numbers comes with its inverse, see `inverse`, for gradients.

    Attributes:
        count: n.
        query, query_places: (n*Q,) and (1, H*W) int32, pixel of each query. Queries past the map's end repeat the last.
        key, key_places: (n*S,) and (m, H*W) int32, pixel of each key. A pixel copied less often than m times points at
            a copy that nobody attends.
        output, output_places: (H'*W',) and (1, n*Q) int32, the query that gives each pixel of the result.
        query_features: (Q, f) one-hot row and column of a query in its block.
        key_features: (n, S, f) log-multiplicity of a key for each row and each column of queries.
            `query_features @ key_features.T` is the bias of the logits.
        location: (H*W, 2) coordinates (x, y) of each pixel, in [-1, 1].
    """

    count: int
    query: np.ndarray
    query_places: np.ndarray
    key: np.ndarray
    key_places: np.ndarray
    output: np.ndarray
    output_places: np.ndarray
    query_features: np.ndarray
    key_features: np.ndarray
    location: np.ndarray


def reflect(index, size):
    """Fold pixel numbers outside `0..size-1` back inside, mirrored at the border pixels, as often as needed."""
    if size == 1:
        return np.zeros_like(index)
    period = 2 * (size - 1)
    index = np.abs(index) % period
    return np.where(index < size, index, period - index)


@cache
def axis_blocks(size, kernel, stride, dilation, block):
    """Cut the ceil(size / stride) queries of an axis into blocks of at most `block`; see `Axis`."""
    outputs = -(-size // stride)
    block = min(block, outputs)
    n = -(-outputs // block)
    query = np.minimum(np.arange(n * block), outputs - 1) * stride
    taps = reflect(query[:, None] + (np.arange(kernel) - kernel // 2) * dilation, size)
    count = np.zeros((n * block, size), np.int32)
    np.add.at(count, (np.arange(n * block)[:, None], taps), 1)
    count = count.reshape(n, block, size)
    seen = count.any(axis=1)
    width = seen.sum(axis=1).max()
    key = np.zeros((n, width), np.int64)
    key_count = np.zeros((n, block, width), np.int32)
    for b in range(n):
        pixels = np.flatnonzero(seen[b])
        key[b, : len(pixels)] = pixels
        key_count[b, :, : len(pixels)] = count[b][:, pixels]
    return Axis(key, key_count)


def choose_blocks(height, width, kernel, stride, dilation, channels):
    """Pick the two `Axis` cuts that move the fewest numbers through memory, for `channels` per head.

    Counted are three passes over the Q*S logits of a block, its S keys and values, read and written, and the bias
    features of its keys. Large blocks waste logits on pairs that no window joins; small ones copy each pixel more
    often.
    """
    sides = range(1, LARGEST_BLOCK + 1)
    rows = [axis_blocks(height, kernel, stride, dilation, side) for side in sides]
    columns = [axis_blocks(width, kernel, stride, dilation, side) for side in sides]

    def cost(pair):
        (n_r, t_r, s_r), (n_c, t_c, s_c) = pair[0].count.shape, pair[1].count.shape
        keys = s_r * s_c
        return n_r * n_c * keys * (3 * t_r * t_c + 3 * channels + t_r + t_c)

    return min(((r, c) for r in rows for c in columns), key=cost)


@cache
def window_blocks(height, width, kernel, stride, dilation, channels):
    """Describe the sliding window on a `height` x `width` map with `channels` per head; see `Blocks`."""
    rows, columns = choose_blocks(height, width, kernel, stride, dilation, channels)
    (n_r, t_r, s_r), (n_c, t_c, s_c) = rows.count.shape, columns.count.shape

    def per_key(of_rows, of_columns):
        """(n_r, s_r, ...) and (n_c, s_c, ...) -> the row's and the column's value of each key, both (n, S, ...)."""
        row = np.broadcast_to(of_rows[:, None, :, None], (n_r, n_c, s_r, s_c, *of_rows.shape[2:]))
        column = np.broadcast_to(of_columns[None, :, None, :], (n_r, n_c, s_r, s_c, *of_columns.shape[2:]))
        return tuple(value.reshape(n_r * n_c, s_r * s_c, *value.shape[4:]) for value in (row, column))

    def log_count(count):
        """(n, T, S) -> (n, S, T)."""
        return np.where(count > 0, np.log(np.maximum(count, 1)), OUTSIDE).transpose(0, 2, 1)

    row, column = per_key(rows.key, columns.key)
    key = row * width + column
    attended = np.logical_and(*per_key(rows.count.any(axis=1), columns.count.any(axis=1)))
    bias = np.concatenate(per_key(log_count(rows.count), log_count(columns.count)), axis=-1)
    if len(key) > 1 or len(np.unique(key)) < height * width:
        # One more key per block that nobody attends: the place for copies that were never made.
        key, attended = (np.pad(a, ((0, 0), (0, 1))) for a in (key, attended))
        bias = np.pad(bias, ((0, 0), (0, 1), (0, 0)), constant_values=OUTSIDE)

    # Outputs (y, x) of the queries, block by block; those past the end are no outputs.
    y, x = np.indices((n_r * t_r, n_c * t_c)).reshape(2, n_r, t_r, n_c, t_c).swapaxes(2, 3).reshape(2, -1)
    down, across = -(-height // stride), -(-width // stride)
    is_output = (y < down) & (x < across)
    query = np.minimum(y, down - 1) * stride * width + np.minimum(x, across - 1) * stride
    output = np.flatnonzero(is_output)[np.argsort((y * across + x)[is_output])]

    row, column = np.divmod(np.arange(t_r * t_c), t_c)
    y, x = np.divmod(np.arange(height * width), width)
    return Blocks(
        count=n_r * n_c,
        query=query.astype(np.int32),
        query_places=inverse(query, is_output, height * width),
        key=key.reshape(-1).astype(np.int32),
        key_places=inverse(key.reshape(-1), attended.reshape(-1), height * width),
        output=output.astype(np.int32),
        output_places=inverse(output, np.ones(len(output), bool), len(query)),
        query_features=np.concatenate([np.eye(t_r)[row], np.eye(t_c)[column]], axis=-1).astype(np.float32),
        key_features=bias.astype(np.float32),
        location=np.stack([np.linspace(-1, 1, width)[x], np.linspace(-1, 1, height)[y]], -1).astype(np.float32),
    )


def inverse(index, used, size):
    """List for each of `size` sources the places of `index` that copied it, counting only places in `used`.

    Returns:
        (m, size) int32, m the largest number of copies; the rest is an unused place, or len(index), a gap, if there is
        none.
    """
    by_source = np.flatnonzero(used)[np.argsort(index[used], kind="stable")]
    copies = np.bincount(index[used], minlength=size)
    first = np.cumsum(copies) - copies
    spare = len(index) if used.all() else np.flatnonzero(~used)[0]
    places = np.full((copies.max(), size), spare, np.int32)
    for m in range(copies.max()):
        has = copies > m
        places[m, has] = by_source[first[has] + m]
    return places
