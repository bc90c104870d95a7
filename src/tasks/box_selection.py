# SPDX-License-Identifier: Apache-2.0
"""The detections among the boxes of all anchors, in NumPy alone: what a detector does after its last convolution.

For files without selection (`export.py --raw`); see "Without selection" in docs/detection.md.
"""

import itertools

import numpy as np


def selected(boxes, scores, selection):
    """Return the detections of one image: boxes (N, 4), scores (N,), falling, and labels int32 (N,).

    Of each level the best pairs of a box and a class are looked at. Among those, of boxes of a class that overlap by
    more than `iou` the one of the higher score stays. Where there are fewer than N, boxes and scores are 0, labels -1.

    Args:
        boxes (numpy.ndarray): float32 (A, 4), x1, y1, x2, y2 of the anchors, level by level.
        scores (numpy.ndarray): float32 (A, K), 0 to 1, of each class.
        selection (dict): of the file's description: "levels", anchors of each level; "of_level", pairs of each level;
            "threshold" of scores; "iou"; and "count", N.
    """
    classes, anchors, pairs = scores.shape[1], np.cumsum([0, *selection["levels"]]), []
    for first, last in itertools.pairwise(anchors):
        of_level = scores[first:last].ravel()
        found = np.flatnonzero(of_level > selection["threshold"])
        best = np.argsort(-of_level[found], kind="stable")[: selection["of_level"]]
        pairs.append(found[best] + first * classes)
    pairs = np.concatenate(pairs)
    pairs = pairs[np.argsort(-scores.ravel()[pairs], kind="stable")]
    kept = pairs[suppressed(boxes[pairs // classes], pairs % classes, selection["iou"], selection["count"])]
    empty = selection["count"] - len(kept)
    return (
        np.pad(boxes[kept // classes], ((0, empty), (0, 0))),
        np.pad(scores.ravel()[kept], (0, empty)),
        np.pad(kept % classes, (0, empty), constant_values=-1).astype(np.int32),
    )


def suppressed(boxes, labels, iou, count):
    """Return the first `count` of boxes (n, 4) that overlap none before them of their class by over `iou`: places."""
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    left, kept = np.arange(len(boxes)), []
    while len(left) and len(kept) < count:
        first, left = left[0], left[1:]
        kept.append(first)
        corners = np.minimum(boxes[left, 2:], boxes[first, 2:]) - np.maximum(boxes[left, :2], boxes[first, :2])
        both = corners.clip(0).prod(1)
        is_same = both > iou * (areas[left] + areas[first] - both)
        left = left[~(is_same & (labels[left] == labels[first]))]
    return np.array(kept, int)
