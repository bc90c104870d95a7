# SPDX-License-Identifier: Apache-2.0
"""Anchors of a pyramid of maps: constants of a network, made once."""

import numpy as np
from mindspore import ops


def pyramid_anchors(strides, sizes, scales, ratios):
    """Return the anchors of each level, a list of float32 (H * W * A, 4), x1, y1, x2, y2 in pixels of the image.

    Their centres are the upper left corners of the cells, as mmdetection has them; they may reach out of the image.
    The order is row, column, ratio, scale.

    Args:
        strides (Sequence[int]): pixels of the image to a cell, level by level.
        sizes (Sequence[tuple[int, int]]): the height and width of each level's map.
        scales (Sequence[float]): sides of a square anchor, in strides.
        ratios (Sequence[float]): height over width.
    """
    return [_level_anchors(stride, *size, scales, ratios) for stride, size in zip(strides, sizes, strict=True)]


def _level_anchors(stride, height, width, scales, ratios):
    root = np.sqrt(np.asarray(ratios, np.float32))[:, None]
    scales = np.asarray(scales, np.float32)
    half_width, half_height = (0.5 * stride * side.reshape(-1) for side in (1 / root * scales, root * scales))
    around = np.stack([-half_width, -half_height, half_width, half_height], 1)
    rows, columns = np.mgrid[:height, :width].astype(np.float32) * stride
    corners = np.stack([columns, rows, columns, rows], 2)
    return (corners[:, :, None] + around).reshape(-1, 4).astype(np.float32)


def octave_scales(base=4, count=3):
    """The scales of RetinaNet: `count` to an octave, from `base` on."""
    return [base * 2 ** (step / count) for step in range(count)]


def usable_anchors(anchors, size, border=-1, divisor=32):
    """Tell the anchors that training judges, bool (B, A).

    Args:
        anchors (Tensor): float32 (A, 4).
        size (Tensor): float32 (B, 2), the height and width of the picture in each padded image.
        border (float): how many pixels an anchor may reach out of the picture. Below 0 it may reach out as it likes,
            and its centre must lie in the picture, whose sides are rounded up to a multiple of `divisor` for this.
        divisor (int): what mmdetection pads each picture to, before it makes a batch of them.
    """
    x1, y1, x2, y2 = [anchors[:, side].expand_dims(0) for side in range(4)]
    height, width = size[:, :1], size[:, 1:]
    if border >= 0:
        is_right_of = ops.logical_and(x1 >= -border, y1 >= -border)
        return ops.logical_and(is_right_of, ops.logical_and(x2 < width + border, y2 < height + border))
    # Centres are whole numbers, up to rounding.
    height, width = [ops.ceil(side / divisor) * divisor - 0.5 for side in (height, width)]
    return ops.logical_and((x1 + x2) / 2 < width, (y1 + y2) / 2 < height)
