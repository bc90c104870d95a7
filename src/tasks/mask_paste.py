# SPDX-License-Identifier: Apache-2.0
"""From the mask of a box, of a fixed size, to that of the whole image, as mmdetection does it."""

import numpy as np


def sampled(mask, box, size):
    """Return a mask (m, m) of probabilities stretched over its box, float64 (H, W), 0 outside.

    Bilinear between the centres of pixels; beyond the outermost ones it fades to 0 within half a pixel of the mask.

    Args:
        box (sequence): x1, y1, x2, y2, pixels of the image.
        size (tuple): (H, W) of the image.
    """
    x1, y1, x2, y2 = box
    return _weights(y1, y2, 0, size[0], len(mask)) @ mask @ _weights(x1, x2, 0, size[1], mask.shape[1]).T


def pasted(mask, box, size, threshold=0.5):
    """Return where a mask (m, m) of probabilities, see `sampled`, reaches `threshold`, uint8 (H, W), column by column.

    A threshold below 0.5 would need pixels outside of the box, which are not looked at.
    """
    whole = np.zeros(size, np.uint8, order="F")
    (left, top), (right, bottom) = np.floor(box[:2]).astype(int), np.ceil(box[2:]).astype(int)
    left, right = (min(max(side, 0), size[1]) for side in (left, right))
    top, bottom = (min(max(side, 0), size[0]) for side in (top, bottom))
    rows = _weights(box[1], box[3], top, bottom, len(mask))
    columns = _weights(box[0], box[2], left, right, mask.shape[1])
    whole[top:bottom, left:right] = rows @ mask @ columns.T >= threshold
    return whole


def _weights(low, high, first, last, side):
    """Return what `side` pixels of a mask, stretched from `low` to `high`, give to pixels `first` to `last`."""
    places = (np.arange(first, last) + 0.5 - low) / max(high - low, 1e-6) * side - 0.5
    return np.clip(1 - np.abs(places[:, None] - np.arange(side)), 0, None)
