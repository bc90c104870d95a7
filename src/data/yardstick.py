# SPDX-License-Identifier: Apache-2.0
"""What plain OpenCV does to make a training image, by which the speed of ours is judged; no training uses it.

Steps and sizes are those of the recipe, but in OpenCV's own way and drawn by Python's generator: pixels are not ours.
"""

import random

import cv2
import numpy as np

from src.data.pixel_transforms import BRIGHTNESS, FACTORS, HUE, TRIES, scaled_size

_HOW = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}


class CropByOpenCV:
    """Decode a file, cut a random crop, resize it; no flip, no normalisation.

    Args:
        config (Config): the recipe.

    Inputs: an `image_folder.Split` and the position of an image. Outputs: uint8 (H, W, 3).
    """

    def __init__(self, config):
        self.data, self.size = config.data, config.model.size

    def __call__(self, listed, position):
        image = _read(listed.path(position), cv2.IMREAD_COLOR)
        height, width = image.shape[:2]
        for _ in range(10):
            area = height * width * random.uniform(*self.data.crop_scale)
            ratio = random.uniform(*self.data.crop_ratio)
            across, down = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
            if across <= width and down <= height:
                break
        else:
            across = down = min(width, height)
        x, y = random.randint(0, width - across), random.randint(0, height - down)
        how = _HOW[self.data.interpolation]
        return cv2.resize(image[y : y + down, x : x + across], self.size[::-1], interpolation=how)


class PairByOpenCV:
    """Decode an image and its mask, scale both, cut a crop that is not mostly of one class, flip, distort; no padding.

    Args:
        config (Config): the recipe.

    Inputs: a `pixel_folder.PairSplit` and the position of an image. Outputs: uint8 (h, w, 3), uint8 (h, w), at most
    of the size of the network's input.
    """

    def __init__(self, config):
        self.settings, self.hflip, self.size = config.segmentation, config.data.hflip, config.model.size

    def __call__(self, listed, position):
        image = _read(listed.path(position), cv2.IMREAD_COLOR)
        mask = _read(listed.mask_path(position), cv2.IMREAD_GRAYSCALE)
        factor = random.uniform(*self.settings.scale_range)
        size = scaled_size(mask.shape, [side * factor for side in self.settings.scale])[::-1]
        image, mask = cv2.resize(image, size), cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
        place = self._place(mask)
        image, mask = image[place], mask[place]
        if random.random() < self.hflip:
            image, mask = cv2.flip(image, 1), cv2.flip(mask, 1)
        return (_distorted(image) if self.settings.distortion else image), mask

    def _place(self, mask):
        for _ in range(TRIES):
            corner = [random.randint(0, max(there - side, 0)) for there, side in zip(mask.shape, self.size)]
            place = tuple(slice(start, start + side) for start, side in zip(corner, self.size))
            counts = cv2.calcHist([mask[place]], [0], None, [256], [0, 256])
            counts[self.settings.ignore_label] = 0
            if counts.max() < self.settings.most_of_one_class * counts.sum():
                break
        return place


def _read(path, kind):
    return cv2.imdecode(np.fromfile(path, np.uint8), kind)


def _distorted(image):
    """Change brightness, contrast, saturation and hue, each at even odds."""
    if random.random() < 0.5:
        image = cv2.add(image, (random.uniform(-BRIGHTNESS, BRIGHTNESS),) * 3)
    if random.random() < 0.5:
        image = cv2.convertScaleAbs(image, alpha=random.uniform(*FACTORS))
    for channel in (1, 0):
        if random.random() < 0.5:
            hues = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
            part = cv2.extractChannel(hues, channel)
            if channel:
                part = cv2.convertScaleAbs(part, alpha=random.uniform(*FACTORS))
            else:
                part = cv2.LUT(part, ((np.arange(256) + random.randint(-HUE, HUE)) % 180).astype(np.uint8))
            cv2.insertChannel(part, hues, channel)
            image = cv2.cvtColor(hues, cv2.COLOR_HSV2BGR)
    return image
