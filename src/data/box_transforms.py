# SPDX-License-Identifier: Apache-2.0
"""From an image with boxes and masks to the network's picture, all changed together, and back.

The steps are those of the published trainings on COCO (mmdetection): OpenCV resizes, images bilinearly, without
averaging over the pixels that shrink into one, and masks by the nearest pixel.
"""

import dataclasses
import math

import cv2
import numpy as np

from src.data.pixel_transforms import aligned_size, resized_image, resized_labels, scaled_size

# How many numbers `Policy.change` takes of chance.
DRAWS = 8
# What it takes in evaluation: nothing is cut out or mirrored.
NO_CHANCE = (1.0, *[0.0] * 6, 1.0)


@dataclasses.dataclass(frozen=True)
class Change:
    """What becomes of an image: it is scaled, perhaps a part is cut out and scaled again, perhaps it is mirrored.

    Attributes:
        original (tuple): (H, W) of the image, pixels.
        scaled (tuple): (H, W) that the whole image is scaled to.
        part (tuple): top, left, height and width of what is cut out of that; None: nothing is.
        size (tuple): (H, W) of the result.
        is_flipped (bool): whether left and right change places.
    """

    original: tuple
    scaled: tuple
    part: tuple | None
    size: tuple
    is_flipped: bool = False

    @property
    def is_tall(self):
        return self.size[0] > self.size[1]

    def image(self, pixels):
        """Return pixels uint8 (H, W, 3) changed."""
        return self._changed(pixels, resized_image)

    def mask(self, mask):
        """Return a mask uint8 (H, W) changed."""
        return self._changed(mask, resized_labels)

    def _changed(self, pixels, resized):
        pixels = resized(pixels, self.scaled)
        if self.part:
            top, left, height, width = self.part
            pixels = resized(np.ascontiguousarray(pixels[top : top + height, left : left + width]), self.size)
        return pixels[:, ::-1] if self.is_flipped else pixels

    def boxes(self, boxes):
        """Return boxes float64 (m, 4) changed and clipped, and whether there is something left of each, bool (m,)."""
        boxes = _clipped(_scaled(boxes, self.original, self.scaled), self.scaled)
        if self.part:
            top, left, height, width = self.part
            boxes = _clipped(boxes - [left, top, left, top], (height, width))
        is_left = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        if self.part:
            boxes = _clipped(_scaled(boxes, self.part[2:], self.size), self.size)
        if self.is_flipped:
            boxes = np.stack([self.size[1] - boxes[:, 2], boxes[:, 1], self.size[1] - boxes[:, 0], boxes[:, 3]], 1)
        return boxes, is_left


def _scaled(boxes, size, new):
    down, across = (there / here for there, here in zip(new, size))
    return boxes * [across, down, across, down]


def _clipped(boxes, size):
    return np.clip(boxes, 0, [size[1], size[0], size[1], size[0]])


def boxes_in_original(boxes, size, original):
    """Return boxes (n, 4) of a picture of `size` (H, W) as those of the image of `original` (H, W) it was made of."""
    return _scaled(np.asarray(boxes, np.float64), size, original)


class Policy:
    """How images are changed.

    Args:
        scale (sequence): shorter and longer side that an image is made to fit into, pixels.
        short_sides (sequence): shorter sides one of which is drawn in the place of that of `scale`; empty: none is.
        crop (float): probability that first a part is cut out, as DETR and Swin do.
        crop_short_sides (sequence): the shorter side before that, one is drawn; the longer is at most that of `scale`.
        crop_sides (sequence): least and most pixels of a side of the part.
        hflip (float): probability of a flip.
    """

    def __init__(self, scale, short_sides=(), crop=0.0, crop_short_sides=(400,), crop_sides=(384, 600), hflip=0.0):
        self.longer, self.short_sides = max(scale), list(short_sides) or [min(scale)]
        self.crop, self.crop_short_sides, self.crop_sides, self.hflip = crop, crop_short_sides, crop_sides, hflip

    @classmethod
    def of(cls, settings, hflip):
        """Return that of training by a `DetectionConfig`."""
        crop = (settings.crop, settings.crop_short_sides, settings.crop_sides)
        return cls(settings.scale, settings.short_sides, *crop, hflip)

    def change(self, size, draws):
        """Return the `Change` of an image of `size` (H, W) by `DRAWS` numbers, each evenly drawn from 0 to below 1."""
        is_cropped, crop_side, high, wide, top, left, side, flip = draws
        scaled, part = size, None
        if is_cropped < self.crop:
            scaled = scaled_size(size, (self.longer, _one_of(self.crop_short_sides, crop_side)))
            least, most = map(int, self.crop_sides)
            sides = [_whole(min(there, least), min(there, most), draw) for there, draw in zip(scaled, (high, wide))]
            corner = [_whole(0, there - side, draw) for there, side, draw in zip(scaled, sides, (top, left))]
            part = (*corner, *sides)
        result = scaled_size(part[2:] if part else size, (self.longer, _one_of(self.short_sides, side)))
        return Change(tuple(size), scaled if part else result, part, result, flip < self.hflip)


def _one_of(values, draw):
    return values[int(draw * len(values))]


def _whole(least, most, draw):
    """Return a whole number from `least` to `most`, both included."""
    return least + int(draw * (most - least + 1))


def shapes(scale, divisor):
    """Return the (H, W) of the pictures that networks are compiled for: a wide one, and a tall one.

    Args:
        scale (sequence): shorter and longer side that images are made to fit into, pixels.
        divisor (int): sides are a multiple of it.
    """
    wide = aligned_size((math.ceil(min(scale)), math.ceil(max(scale))), divisor)
    return wide, wide[::-1]


def placed(mask, size):
    """Return a mask uint8 (h, w) at the top left of zeros (H, W)."""
    return cv2.copyMakeBorder(
        np.ascontiguousarray(mask), 0, size[0] - mask.shape[0], 0, size[1] - mask.shape[1], cv2.BORDER_CONSTANT, value=0
    )
