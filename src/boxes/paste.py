# SPDX-License-Identifier: Apache-2.0
"""Masks of detections, laid back into the image; NumPy, outside of graphs."""

import numpy as np


def pasted(mask, box, height, width):
    """Return a mask that fills a box, laid into an image: float32 (height, width), 0 outside.

    Between the pixels of the mask it is bilinear, at its edges it fades to 0, as mmdetection pastes.

    Args:
        mask (numpy.ndarray): float32 (h, w), probabilities.
        box (numpy.ndarray): x1, y1, x2, y2 in pixels of the image.
    """
    x1, y1, x2, y2 = (float(edge) for edge in box)
    rows, of_rows = _interpolation(y1, y2, mask.shape[0], height)
    columns, of_columns = _interpolation(x1, x2, mask.shape[1], width)
    image = np.zeros((height, width), np.float32)
    image[rows, columns] = of_rows @ mask @ of_columns.T
    return image


def _interpolation(start, end, old, size):
    """Return the pixels between which a box lies, and what the mask's rows count for each, (pixels, old)."""
    length = end - start
    if length <= 0:  # a pixel whose centre is just on it would be half covered
        return slice(0, 0), np.zeros((0, old), np.float32)
    reach = 0.5 * length / old + 1  # beyond the edge it fades within half a row of the mask
    pixels = slice(*(int(np.clip(edge, 0, size)) for edge in (start - reach, end + reach + 1)))
    places = (np.arange(pixels.start, pixels.stop) + 0.5 - start) / length * old - 0.5
    weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(old)))
    return pixels, weights.astype(np.float32)
