# SPDX-License-Identifier: Apache-2.0
"""Boxes said as differences from others: what networks predict.

dx and dy are in widths and heights of the other box, dw and dh are logarithms of ratios; all less `means`, by `stds`.
Girshick et al., *Rich feature hierarchies*, CVPR 2014.
"""

import math

from mindspore import ops

from src.ops.alike import alike

MEANS, STDS = (0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0)
# So that exp does not overflow: a box becomes at most 62.5 times as wide as the other, mmdetection's limit.
_MOST = abs(math.log(16 / 1000))
_LEAST_SIDE = 1e-6


def _centres_and_sides(boxes):
    sides = boxes[..., 2:] - boxes[..., :2]
    return (boxes[..., :2] + boxes[..., 2:]) * 0.5, sides


def encoded(boxes, targets, means=MEANS, stds=STDS):
    """Return the deltas from `boxes` to `targets`, both float32 (..., 4): (..., 4). Finite for boxes without area."""
    (centre, sides), (target, target_sides) = _centres_and_sides(boxes), _centres_and_sides(targets)
    sides, target_sides = ops.maximum(sides, _LEAST_SIDE), ops.maximum(target_sides, _LEAST_SIDE)
    moved, grown = (target - centre) / sides, ops.log(target_sides / sides)
    deltas = [moved[..., 0], moved[..., 1], grown[..., 0], grown[..., 1]]
    deltas = [(delta - mean) / std for delta, mean, std in zip(deltas, means, stds)]
    return ops.stack(deltas, -1)


def decoded(boxes, deltas, means=MEANS, stds=STDS):
    """Return the boxes that `deltas` say, float32 (..., 4), from `boxes`; the shapes broadcast."""
    centre, sides = _centres_and_sides(boxes)
    low, high = (), ()  # exporters know no lists
    for axis in (0, 1):
        moved = sides[..., axis] * (deltas[..., axis] * stds[axis] + means[axis]) + centre[..., axis]
        grown = deltas[..., 2 + axis] * stds[2 + axis] + means[2 + axis]
        half = sides[..., axis] * ops.exp(ops.clip_by_value(grown, -_MOST, _MOST)) * 0.5
        low += (moved - half,)
        high += (moved + half,)
    return ops.stack(low + high, -1)


def clipped(boxes, size):
    """Cut boxes, float32 (B, ..., 4), to their pictures, whose heights and widths `size` says, float32 (B, 2)."""
    size = size.reshape((size.shape[0],) + (1,) * (boxes.ndim - 2) + (2,))
    height, width = size[..., 0], size[..., 1]
    sides = ()
    for side in range(4):
        edge, limit = alike(ops.relu(boxes[..., side]), (width, height)[side % 2])
        sides += (ops.minimum(edge, limit),)
    return ops.stack(sides, -1)
