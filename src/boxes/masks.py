# SPDX-License-Identifier: Apache-2.0
"""What a mask head is trained for: the ground truth's masks, as they look in a box."""

import mindspore as ms
from mindspore import ops

from src.boxes.roi_weights import bin_weights, sample_places

_AT_A_TIME = 1 << 26  # pixels, as float32


def mask_targets(masks, boxes, numbers, side=28):
    """Return whether the mean of each bin's samples (ROIAlign, `aligned`, adaptive) is 0.5 or more, (B, R, side, side).

    Args:
        masks (Tensor): uint8 (B, M, H, W), 0 or 1.
        boxes (Tensor): float32 (B, R, 4), in pixels of the masks.
        numbers (Tensor): int32 (B, R), which mask each box is for, from 0 to M - 1.

    Returns:
        Tensor: float32 (B, R, side, side), 0 or 1.
    """
    return (mask_shares(masks, boxes, numbers, side) >= 0.5).astype(ms.float32)


def mask_shares(masks, boxes, numbers, side=28):
    """Return the means that `mask_targets` judges, float32 (B, R, side, side)."""
    batch, count, height, width = masks.shape
    boxes = ops.stop_gradient(boxes)
    numbers = (numbers + (ops.arange(batch) * count).astype(ms.int32).reshape(-1, 1)).reshape(-1)
    masks = masks.reshape(-1, height, width)
    boxes = boxes.reshape(-1, 4)

    shares, step = [], max(1, _AT_A_TIME // (height * width))
    for first in range(0, numbers.shape[0], step):
        if shares:  # one after the other, or all would be in memory together
            numbers, boxes = ops.depend(numbers, shares[-1]), ops.depend(boxes, shares[-1])
        bitmaps = ops.gather(masks, numbers[first : first + step], 0).astype(ms.float32)
        x1, y1, x2, y2 = boxes[first : first + step].split(1, 1)
        of_rows, of_columns = _weights(y1, y2, side, height), _weights(x1, x2, side, width)
        shares.append(ops.matmul(ops.matmul(of_rows, bitmaps), of_columns.swapaxes(1, 2)))
    return ops.stop_gradient(ops.concat(shares, 0)).reshape(batch, -1, side, side)


def _weights(start, end, side, size):
    """(N, side, size) of edges (N, 1)."""
    places = sample_places(start - 0.5, end - start, side, 0)
    return bin_weights(places, ops.zeros_like(start), size, ops.ones_like(start) * size)
