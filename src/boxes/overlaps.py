# SPDX-License-Identifier: Apache-2.0
"""How much boxes overlap. Boxes are float32 (..., 4): x1, y1, x2, y2, continuous, so their width is x2 - x1."""

from mindspore import ops

from src.ops.alike import alike

_EPSILON = 1e-6  # mmdetection's: the least union


def areas(boxes):
    """(..., 4) -> (...)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def intersections(a, b):
    """Areas that boxes share: (..., 4) and (..., 4), which broadcast, to (...)."""
    shared = None
    for axis in (0, 1):
        # One after the other, or all would be in memory together: tables of pairs are large.
        end = ops.minimum(*alike(_after(shared, a[..., axis + 2]), _after(shared, b[..., axis + 2])))
        start = ops.maximum(*alike(_after(end, a[..., axis]), _after(end, b[..., axis])))
        side = ops.relu(end - start)
        shared = side if axis == 0 else shared * side
    return shared


def _after(done, x):
    return x if done is None else ops.depend(x, done)


def pairwise_iou(a, b):
    """Intersection over union of each box of `a`, (B, M, 4), with each of `b`, (B or 1, A, 4): (B, M, A)."""
    a, b = a.expand_dims(2), b.expand_dims(1)
    shared = intersections(a, b)
    area, other_area = alike(_after(shared, areas(a)), _after(shared, areas(b)))
    return shared / ops.maximum(area + other_area - shared, _EPSILON)


def pairwise_cover(a, b):
    """The share of each box of `b`, (B or 1, A, 4), that a box of `a`, (B, M, 4), covers: (B, M, A)."""
    a, b = a.expand_dims(2), b.expand_dims(1)
    shared, area = alike(intersections(a, b), ops.maximum(areas(b), _EPSILON))
    return shared / area


def giou(a, b):
    """Generalised IoU of pairs of boxes, (..., 4) and (..., 4), to (...), from -1 to 1.

    Rezatofighi et al., *Generalized Intersection over Union*, CVPR 2019.
    """
    shared = intersections(a, b)
    union = ops.maximum(areas(a) + areas(b) - shared, _EPSILON)
    width = ops.maximum(a[..., 2], b[..., 2]) - ops.minimum(a[..., 0], b[..., 0])
    height = ops.maximum(a[..., 3], b[..., 3]) - ops.minimum(a[..., 1], b[..., 1])
    enclosing = ops.maximum(ops.relu(width) * ops.relu(height), _EPSILON)
    return shared / union - (enclosing - union) / enclosing
