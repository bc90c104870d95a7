# SPDX-License-Identifier: Apache-2.0
"""Windows of one size over an image of any size, and their answers put together again."""

import itertools

import numpy as np


def usual_stride(window):
    """Return the stride that published evaluations take: two thirds of each side of `window` (h, w)."""
    return tuple(max(1, 2 * side // 3) for side in window)


class Windows:
    """Covers H x W by windows of h x w. The last ones of a row or column are moved inside; a smaller image is padded.

    As the sliding evaluation of mmsegmentation, which however takes smaller windows of a smaller image.

    Args:
        size (tuple): (H, W) of the image.
        window (tuple): (h, w).
        stride (tuple): from a window to the next, at most (h, w).

    Attributes:
        places (list): (top, left) of each window, row by row.

    Raises:
        ValueError: a stride that would leave pixels out.
    """

    def __init__(self, size, window, stride):
        if not all(1 <= step <= side for step, side in zip(stride, window)):
            raise ValueError(f"a stride of {tuple(stride)} does not cover an image by windows of {tuple(window)}")
        self.size, self.window = tuple(size), tuple(window)
        self._padded = tuple(map(max, size, window))
        starts = (
            [min(start, whole - side) for start in range(0, whole - side + step, step)]
            for whole, side, step in zip(self._padded, window, stride)
        )
        self.places = list(itertools.product(*starts))

    def cut(self, image):
        """Yield the part (C, h, w) of each window of an image (C, H, W); zeros pad it below and to the right."""
        image = np.pad(image, [(0, 0), *((0, whole - side) for side, whole in zip(self.size, self._padded))])
        for place in self.places:
            yield image[(slice(None), *self._slices(place))]

    def averaged(self, answers):
        """Return float32 (K, H, W): the answers (K, h, w) of all windows, in order, averaged where they overlap."""
        total, counts = None, np.zeros(self._padded, np.float32)
        for place, answer in zip(self.places, answers, strict=True):
            if total is None:
                total = np.zeros((len(answer), *self._padded), np.float32)
            total[(slice(None), *self._slices(place))] += answer
            counts[self._slices(place)] += 1
        total /= counts
        return total[:, : self.size[0], : self.size[1]]

    def nearest(self, answers):
        """Return (H, W): of the answers (h, w), in order, each pixel's from the window whose border is farthest."""
        depth = np.minimum(*np.meshgrid(*(_depth(side) for side in self.window), indexing="ij"))
        whole, deepest = None, np.zeros(self._padded, depth.dtype)
        for place, answer in zip(self.places, answers, strict=True):
            if whole is None:
                whole = np.zeros(self._padded, answer.dtype)
            part = self._slices(place)
            is_deeper = depth > deepest[part]
            whole[part][is_deeper] = answer[is_deeper]
            deepest[part][is_deeper] = depth[is_deeper]
        return whole[: self.size[0], : self.size[1]]

    def _slices(self, place):
        return tuple(slice(start, start + side) for start, side in zip(place, self.window))


def _depth(side):
    """(side,): how far each pixel of a row is from its ends, at least 1."""
    pixels = np.arange(side)
    return np.minimum(pixels, side - 1 - pixels) + 1
