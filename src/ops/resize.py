# SPDX-License-Identifier: Apache-2.0
"""Maps of another size: enlarged or reduced by bilinear interpolation, by repetition, or by averages over cells."""

from contextlib import contextmanager

import numpy as np
from mindspore import Tensor, nn, ops

from src.ops.interpolation import interpolation, linear

_is_by_products = False


@contextmanager
def by_products():
    """Within it graphs are compiled to interpolate by two products with constants, all that exporters know.

    MindSpore's own operator, which they have otherwise, is faster on large maps.
    """
    global _is_by_products
    before, _is_by_products = _is_by_products, True
    try:
        yield
    finally:
        _is_by_products = before


def resized(x, size):
    """Interpolate (B, C, H, W) bilinearly to (B, C, *size), the corners of both maps in the same place.

    As PyTorch's `interpolate(mode="bilinear", align_corners=False)`.
    """
    if x.shape[2:] == size:
        return x
    if _asked_by_products():
        return _averaged(x, _linear(x.shape[2], size[0]), _linear(x.shape[3], size[1]))
    return _bilinear(x, size)


class _Bilinear(nn.Cell):
    """MindSpore's operator, with two products as its gradient: on CPU its own takes two to ten times as long."""

    def construct(self, x, size):
        return ops.interpolate(x, size=size, mode="bilinear", align_corners=False)

    def bprop(self, x, size, out, dout):
        rows, columns = _linear(x.shape[2], size[0]), _linear(x.shape[3], size[1])
        return _averaged(dout, rows.swapaxes(0, 1), columns.swapaxes(0, 1)), size


_bilinear = _Bilinear()


def enlarged(x, size):
    """Repeat the pixels of (B, C, H, W) to (B, C, *size), as PyTorch's `interpolate(mode="nearest")`."""
    batch, channels, height, width = x.shape
    if size == (height, width):
        return x
    if size == (2 * height, 2 * width):
        # Joining copies is faster than a resize on CPU.
        x = ops.concat([x.reshape(batch, channels, -1, 1)] * 2, 3).reshape(batch, channels, height, 2 * width)
        return ops.concat([x] * 2, 3).reshape(batch, channels, 2 * height, 2 * width)
    if _asked_by_products():
        return _averaged(x, _nearest(height, size[0]), _nearest(width, size[1]))
    return ops.interpolate(x, size=size, mode="nearest")


def resized_with_classes_last(x, size):
    """Interpolate (B, K, h, w) as `resized` does, to (W, H, B, K) for `size` (H, W).

    By two products, for which no large map has to be transposed: a softmax over any axis but the last is slow.
    """
    batch, classes = x.shape[:2]
    x = _along_first(x.transpose(2, 3, 0, 1), size[0])
    x = _along_first(x.transpose(1, 0, 2, 3), size[1])
    return x.reshape(size[1], size[0], batch, classes)


def _along_first(x, new):
    """(old, a, b, c) -> (new, a, b, c)."""
    weights = _linear(x.shape[0], new).astype(x.dtype).swapaxes(0, 1)
    return ops.matmul(weights, x.reshape(x.shape[0], -1)).reshape(new, *x.shape[1:])


def pooled(x, side):
    """Average (B, C, H, W) over side x side cells, which may overlap, to (B, C, side, side).

    As PyTorch's `adaptive_avg_pool2d`; two products with constants, which every device and file format has.
    """
    return _averaged(x, _cells(x.shape[2], side), _cells(x.shape[3], side))


def _averaged(x, rows, columns):
    """Average (B, C, h, w) by weights of its rows, (h, H), and of its columns, (w, W), to (B, C, H, W).

    Constants come second: as first factors OpenCV does not read them. Maps are transposed where they are small.
    """
    x = ops.matmul(x.swapaxes(2, 3), rows.astype(x.dtype)).swapaxes(2, 3)
    return ops.matmul(x, columns.astype(x.dtype))


# Tensors, and an answer, made while a graph is compiled.


@ops.constexpr
def _asked_by_products():
    return _is_by_products


@ops.constexpr
def _linear(old, new):
    return Tensor(interpolation(old, new, linear).T.astype(np.float32))


@ops.constexpr
def _nearest(old, new):
    return Tensor(np.eye(old, dtype=np.float32)[np.arange(new) * old // new].T)


@ops.constexpr
def _cells(size, count):
    """(size, count): the share of each pixel in the average of each cell."""
    weights = np.zeros((size, count), np.float32)
    for cell in range(count):
        first, end = cell * size // count, -(-(cell + 1) * size // count)
        weights[first:end, cell] = 1 / (end - first)
    return Tensor(weights)
