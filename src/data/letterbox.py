# SPDX-License-Identifier: Apache-2.0
"""From an image to the picture that a detector is given in evaluation: scaled, at the top left of its input."""

import numpy as np

from src.data.box_transforms import shapes
from src.data.pixel_transforms import normalised, resized_image, scaled_size


class TwoShapes:
    """Pictures as training has them, wide or tall.

    Args:
        scale (sequence): shorter and longer side that an image is made to fit into, pixels.
        divisor (int): of the input's sides.
        mean, std (sequence): of each channel, pixels in 0..1.

    Inputs: pixels uint8 (h, w, 3). Outputs: float32 (3, H, W), zero below and on the right of the picture, and the
    height and width of that, float32 (2,).
    """

    def __init__(self, scale, divisor, mean, std):
        self.scale, self.shapes, self.mean, self.std = scale, shapes(scale, divisor), mean, std

    def size(self, original):
        """Return the (H, W) that an image of `original` (h, w) is scaled to."""
        return scaled_size(original, self.scale)

    def is_tall(self, original):
        height, width = self.size(original)
        return height > width

    def shape(self, original):
        """Return the (H, W) of the input for it."""
        return self.shapes[self.is_tall(original)]

    def __call__(self, pixels):
        size, shape = self.size(pixels.shape[:2]), self.shape(pixels.shape[:2])
        return normalised(resized_image(pixels, size), self.mean, self.std, shape), np.array(size, np.float32)


class Letterbox:
    """Pictures for an input of one size: scaled as training does it, or less where they would not fit.

    Args:
        shape (tuple): (H, W) of the input.
        scale (sequence), mean, std (sequence): see `TwoShapes`.
        as_pixels (bool): give uint8 (H, W, 3), the mean colour around the picture.
    """

    def __init__(self, shape, scale, mean, std, as_pixels=False):
        self.whole, self.scale, self.mean, self.std, self.as_pixels = tuple(shape), scale, mean, std, as_pixels

    def size(self, original):
        sides = zip((*self.whole, max(self.scale), min(self.scale)), (*original, max(original), min(original)))
        factor = min(there / here for there, here in sides)
        return tuple(max(1, int(side * factor + 0.5)) for side in original)

    def is_tall(self, original):
        return False

    def shape(self, original):
        return self.whole

    def __call__(self, pixels):
        size = self.size(pixels.shape[:2])
        scaled = resized_image(pixels, size)
        if not self.as_pixels:
            return normalised(scaled, self.mean, self.std, self.whole), np.array(size, np.float32)
        picture = np.empty((*self.whole, 3), np.uint8)
        picture[:] = np.rint(255 * np.asarray(self.mean))
        picture[: size[0], : size[1]] = scaled
        return picture, np.array(size, np.float32)
