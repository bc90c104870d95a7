# SPDX-License-Identifier: Apache-2.0
"""Maps of another size: enlarged or reduced by bilinear interpolation, by repetition, or by averages over cells."""

import numpy as np
from mindspore import Tensor, ops


def resized(x, size):
    """Interpolate (B, C, H, W) bilinearly to (B, C, *size), the corners of both maps in the same place.

    As PyTorch's `interpolate(mode="bilinear", align_corners=False)`.
    """
    if x.shape[2:] == size:
        return x
    return ops.interpolate(x, size=size, mode="bilinear", align_corners=False)


def enlarged(x, size):
    """Repeat the pixels of (B, C, H, W) to (B, C, *size), as PyTorch's `interpolate(mode="nearest")`."""
    batch, channels, height, width = x.shape
    if size == (height, width):
        return x
    if size == (2 * height, 2 * width):
        # Joining copies is faster than a resize on CPU.
        x = ops.concat([x.reshape(batch, channels, -1, 1)] * 2, 3).reshape(batch, channels, height, 2 * width)
        return ops.concat([x] * 2, 3).reshape(batch, channels, 2 * height, 2 * width)
    return ops.interpolate(x, size=size, mode="nearest")


def pooled(x, side):
    """Average (B, C, H, W) over side x side cells, which may overlap, to (B, C, side, side).

    As PyTorch's `adaptive_avg_pool2d`; two products with constants, which every device and file format has.
    """
    rows, columns = _cells(x.shape[2], side), _cells(x.shape[3], side)
    x = ops.matmul(x, columns.astype(x.dtype))
    return ops.matmul(x.swapaxes(2, 3), rows.astype(x.dtype)).swapaxes(2, 3)


@ops.constexpr
def _cells(size, count):
    """(size, count): the share of each pixel in the average of each cell, a tensor made while a graph is compiled."""
    weights = np.zeros((size, count), np.float32)
    for cell in range(count):
        first, end = cell * size // count, -(-(cell + 1) * size // count)
        weights[first:end, cell] = 1 / (end - first)
    return Tensor(weights)
