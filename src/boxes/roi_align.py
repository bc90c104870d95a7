# SPDX-License-Identifier: Apache-2.0
"""ROIAlign over the levels of a pyramid. He et al., *Mask R-CNN*, ICCV 2017; `aligned=True` of the later code bases."""

import math

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from src.boxes.roi_weights import bin_weights, sample_places
from src.ops.alike import alike

# Numbers gathered at a time, a quarter GB of float32: boxes are pooled in turns.
_AT_A_TIME = 1 << 26


def roi_levels(boxes, count, finest=56):
    """The level of each box, int32 (...): floor(log2(sqrt(w * h) / finest + 1e-6)), from 0 to `count` - 1.

    Lin et al., *Feature Pyramid Networks*, CVPR 2017, as mmdetection has it.
    """
    sides = ops.relu(boxes[..., 2:] - boxes[..., :2])
    scale = ops.sqrt(sides[..., 0] * sides[..., 1]) / finest + 1e-6
    level = ops.zeros_like(scale)
    for finer in range(1, count):
        level = level + (scale >= 2**finer).astype(ms.float32)
    return level.astype(ms.int32)


class RoiAlign(nn.Cell):
    """Pool each box from its level to `output` x `output` bins: the mean of samples, which lie between pixels.

    Each box is a product of the pixels that it covers, gathered, and of what they count in each bin. So boxes of any
    number of samples are exact, which MindSpore's operator gets wrong, and on CPU faster than its two samples.

    Args:
        output (int): bins along a side.
        strides (Sequence[int]): pixels of the image to a pixel of each map.
        samples (int): along a side of a bin; 0 for as many as it has pixels of the map, rounded up.
        finest (float): see `roi_levels`.

    Inputs:
        maps (tuple[Tensor]): (B, C, H / stride, W / stride), level by level.
        boxes (Tensor): float32 (B, R, 4). Without gradient.

    Outputs:
        Tensor: (B * R, C, output, output); 0 for boxes without area where `samples` is 0.
    """

    def __init__(self, output, strides, samples=0, finest=56):
        super().__init__()
        self.output, self.strides, self.samples, self.finest = output, tuple(strides), samples, finest
        self.products = _Products()

    def construct(self, maps, boxes):
        if len(maps) != len(self.strides):
            raise ValueError("ROIAlign takes a map for each stride")
        batch, channels = maps[0].shape[:2]
        count = boxes.shape[1]
        sizes = [x.shape[2:] for x in maps]
        pixels = ()  # a tuple, since exporters know no lists
        for x in maps:
            pixels += (x.reshape(batch, channels, -1).swapaxes(1, 2),)
        pixels = ops.concat(pixels, 1).reshape(-1, channels)

        boxes = ops.stop_gradient(boxes)
        level = roi_levels(boxes, len(maps), self.finest).reshape(-1)
        height, width, stride, first = ops.gather(_geometry(sizes, self.strides), level, 0).split(1, 1)
        images = ops.arange(batch).astype(ms.float32).reshape(batch, 1).broadcast_to((batch, count)).reshape(-1, 1)
        first = first + images * (pixels.shape[0] // batch)
        x1, y1, x2, y2 = [boxes[..., side].reshape(-1, 1) / stride - 0.5 for side in range(4)]
        top, rows, of_rows = self.side(y1, y2 - y1, height, max([size[0] for size in sizes]))
        left, columns, of_columns = self.side(x1, x2 - x1, width, max([size[1] for size in sizes]))

        # Each place is a pixel of the smallest rectangle of pixels that hold a box; beyond it the weights are 0.
        place = ops.arange(_most_pixels(sizes, self.strides, self.finest)).astype(ms.float32).reshape(1, -1)
        place, top, left, rows, columns, height, width, first = alike(
            place, top, left, rows, columns, height, width, first
        )
        row = ops.floor((place + 0.5) / columns)
        column = place - row * columns
        row = ops.minimum(row, rows)
        pixel = ops.minimum(top + row, height - 1) * width + ops.minimum(left + column, width - 1) + first
        # As places among the rows, and columns, of all boxes.
        numbers, _ = alike(ops.arange(batch * count).astype(ms.float32).reshape(-1, 1), row)
        row, column = row + numbers * of_rows.shape[1], column + numbers * of_columns.shape[1]
        places = [x.astype(ms.int32) for x in (pixel, row, column)]
        weights = [x.reshape(-1, self.output) for x in (of_rows, of_columns)]
        pooled = self.products(pixels, *places, *weights)
        return pooled.reshape(-1, channels, self.output, self.output)

    def side(self, start, length, size, most):
        """The first row that a box needs, how many, and what each counts, (N, most + 1, output)."""
        number, distance, firsts = sample_places(start, length, self.output, self.samples)
        last = firsts[:, -1:] + distance * ops.relu(number - 1)
        low = ops.minimum(ops.relu(ops.floor(firsts[:, :1])), size - 1)
        high = ops.minimum(ops.relu(ops.floor(last) + 1), size - 1)
        # And a row of zeros after the last, for places that no pixel takes.
        weights = bin_weights((number, distance, firsts), low, most + 1, size).swapaxes(1, 2)
        return low, high - low + 1, weights


class _Products(nn.Cell):
    """The products, some boxes at a time; their gradient makes the weights anew instead of keeping them."""

    def __init__(self):
        super().__init__()
        self.product = ops.BatchMatMul(transpose_a=True)
        self.product_of_gradient = ops.BatchMatMul(transpose_b=True)

    def construct(self, pixels, pixel, row, column, of_rows, of_columns):
        pooled = ()
        for first, end in _turns(pixel.shape, pixels.shape[1], of_rows.shape[1]):
            if pooled:  # one after the other, or all would be in memory together
                pixel = ops.depend(pixel, pooled[-1])
                row = ops.depend(row, pooled[-1])
            weights = _weights(row[first:end], column[first:end], of_rows, of_columns)
            covered = ops.gather(pixels, pixel[first:end], 0)
            pooled += (self.product(covered, weights.astype(pixels.dtype)),)
        return ops.concat(pooled, 0)

    def bprop(self, pixels, pixel, row, column, of_rows, of_columns, out, dout):
        gradient = ops.zeros_like(pixels)
        for first, end in _turns(pixel.shape, pixels.shape[1], of_rows.shape[1]):
            row = ops.depend(row, gradient)
            weights = _weights(row[first:end], column[first:end], of_rows, of_columns)
            shares = self.product_of_gradient(weights.astype(dout.dtype), dout[first:end])
            shares, places = shares.reshape(-1, pixels.shape[1]), pixel[first:end].reshape(-1)
            gradient = gradient + ops.unsorted_segment_sum(shares, places, pixels.shape[0])
        others = [ops.zeros_like(x) for x in (pixel, row, column, of_rows, of_columns)]
        return (gradient, *others)


def _weights(row, column, of_rows, of_columns):
    """What each pixel counts in each bin: places (n, P) in (., bins), in rows and in columns, to (n, P, bins ** 2)."""
    bins = of_rows.shape[1]
    # Repeated by products, which are faster than `ops.broadcast_to` of short rows.
    of_rows = ops.matmul(ops.gather(of_rows, row, 0).reshape(-1, bins), _repetition(bins, True))
    of_columns = ops.matmul(ops.gather(of_columns, column, 0).reshape(-1, bins), _repetition(bins, False))
    return (of_rows * of_columns).reshape(*row.shape, -1)


# Made while a graph is compiled.


@ops.constexpr
def _geometry(sizes, strides):
    """Of each level: height, width, stride, and the place of its first pixel among those of an image."""
    ends = np.cumsum([height * width for height, width in sizes])
    rows = [(*size, stride, first) for size, stride, first in zip(sizes, strides, [0, *ends])]
    return ms.Tensor(np.array(rows, np.float32))


@ops.constexpr
def _most_pixels(sizes, strides, finest):
    """The most pixels that a box inside of the image needs: its area has a limit on each level but the last."""
    most = 0
    for level, (height, width) in enumerate(sizes):
        area = math.inf if level == len(sizes) - 1 else (finest * 2 ** (level + 1) / strides[level]) ** 2 * 1.001
        for rows in range(1, height + 1):
            # A side of s pixels needs at most ceil(s) + 2 rows.
            columns = width if rows <= 3 else min(width, math.ceil(area / (rows - 3)) + 2) if area < math.inf else width
            most = max(most, rows * columns)
    return most


@ops.constexpr
def _turns(places, channels, bins):
    """The first and the end of the boxes of each turn."""
    boxes, pixels = places
    step = max(1, _AT_A_TIME // (pixels * (channels + bins * bins)))
    return tuple((first, min(first + step, boxes)) for first in range(0, boxes, step))


@ops.constexpr
def _repetition(bins, each):
    """(bins, bins * bins): repeats each number, or all of them, `bins` times."""
    one, ones = np.eye(bins, dtype=np.float32), np.ones((1, bins), np.float32)
    return ms.Tensor(np.kron(one, ones) if each else np.kron(ones, one))
