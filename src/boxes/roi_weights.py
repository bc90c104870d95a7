# SPDX-License-Identifier: Apache-2.0
"""ROIAlign as a product: what each row, and each column, of a map counts in each bin of a box."""

import mindspore as ms
from mindspore import ops

from src.ops.alike import alike


def sample_places(start, length, bins, samples):
    """Return how samples lie along a side: their number in a bin (N, 1), their distance (N, 1), the firsts (N, bins).

    Args:
        start, length (Tensor): float32 (N, 1), of boxes, in pixels of a map, 0 in the middle of the first.
        samples (int): in a bin; 0 for as many as it has pixels, rounded up, so none where the length is 0 or less.
    """
    size = length / bins
    number = ops.relu(-ops.floor(-size)) if samples == 0 else ops.ones_like(size) * samples
    distance = size / ops.maximum(number, 1.0)
    return number, distance, start + 0.5 * distance + size * ops.arange(bins).astype(ms.float32)


def bin_weights(places, top, count, size):
    """Return the share of `count` rows from row `top` on in the mean of each bin's samples, float32 (N, bins, count).

    Samples lie between two rows and count for both, the nearer one more; from the middle of the first row to a pixel
    above they count for that row, and so below the last; samples farther outside are 0. In closed form, since the
    number of samples differs from box to box.

    Args:
        places (tuple[Tensor]): what `sample_places` returned.
        top (Tensor): float32 (N, 1), a whole number.
        size (Tensor): float32 (N, 1), the number of rows of the map.
    """
    number, distance, first = places
    # Many samples in no length: all in one place.
    step = ops.maximum(distance, 1e-6)
    low = ops.minimum(ops.relu(-ops.floor((first + 1) / step)), number)
    high = ops.maximum(ops.minimum(ops.floor((size - first) / step) + 1, number), low)
    # How many rows' worth of samples lie up to each row, from the one before the first on; their differences count.
    rows = (top - 1 + ops.arange(count + 1).astype(ms.float32)).expand_dims(1)
    is_last = (rows >= size.expand_dims(2) - 1).astype(ms.float32)
    is_between = (rows >= 0).astype(ms.float32) * (1 - is_last)
    high, low, step, first = [x.expand_dims(2) for x in (high, low, step, first)]
    rows, is_between, is_last, low, high, step, first = alike(rows, is_between, is_last, low, high, step, first)
    offset = rows - first
    whole = ops.minimum(ops.maximum(ops.floor(offset / step) + 1, low), high)  # past those up to the row
    begun = ops.minimum(ops.maximum(-ops.floor(-(offset + 1) / step), low), high)  # past those above the next
    reached = whole - low + (begun - whole) * (offset + 1 - 0.5 * step * (whole + begun - 1))
    reached = reached * is_between + (high - low) * is_last
    number = ops.broadcast_to(ops.maximum(number, 1.0).expand_dims(2), (*first.shape[:2], count))
    return (reached[:, :, 1:] - reached[:, :, :-1]) / number
