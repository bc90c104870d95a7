# SPDX-License-Identifier: Apache-2.0
"""From an image and its mask to the network's input and its labels, both always changed together.

The steps are those of the published trainings on ADE20K (mmsegmentation): OpenCV resizes, images bilinearly, without
averaging over the pixels that shrink into one, and masks by the nearest pixel. What changes each value by itself is
looked up in a table of the 256 there are: that is several times as fast, and the same to the bit.
"""

import cv2
import numpy as np

# Crops that are drawn until one is not mostly of one class.
TRIES = 10
# How far colours are distorted, in grey levels, factors and degrees / 2, as OpenCV counts hues.
BRIGHTNESS, FACTORS, HUE = 32, (0.5, 1.5), 18
_VALUES = np.arange(256, dtype=np.uint8)


def scaled_size(size, scale):
    """Return the (H, W) that an image of `size` (H, W) has when it just fits into `scale`, whichever way that lies.

    Args:
        scale (sequence): the longer and the shorter side, pixels.
    """
    factor = min(max(scale) / max(size), min(scale) / min(size))
    return tuple(max(1, int(side * factor + 0.5)) for side in size)


def aligned_size(size, divisor):
    """Return `size` with each side raised to a multiple of `divisor`."""
    return tuple(-(-side // divisor) * divisor for side in size)


def resized_image(pixels, size):
    """Return pixels (h, w, 3) as (H, W, 3), bilinearly."""
    return cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_LINEAR)


def resized_labels(labels, size):
    """Return labels (h, w) as (H, W), each that of the nearest pixel."""
    return cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST)


class TrainPixels:
    """The training steps: scale, crop, flip, distort colours. The same for a position, seed and epoch.

    Args:
        size (tuple): (H, W), the most that the result has.
        scale (sequence): the longer and the shorter side that an image is made to fit into, pixels.
        scale_range (sequence): by a factor drawn from here.
        most_of_one_class (float): share of a crop that a class may have, if `TRIES` crops have a better one.
        hflip (float): probability of a flip.
        is_distorted (bool): whether brightness, contrast, saturation and hue are.
        ignore_label (int): of pixels without a class.
        seed (sequence): of whole numbers.

    Inputs: pixels uint8 (h, w, 3), labels uint8 (h, w), and the position of the image. Outputs: both, smaller than
    `size` where the scaled image is.
    """

    def __init__(self, size, scale, scale_range, most_of_one_class, hflip, is_distorted, ignore_label, seed):
        self.size, self.scale, self.scale_range = size, scale, scale_range
        self.most_of_one_class, self.hflip, self.is_distorted = most_of_one_class, hflip, is_distorted
        self.ignore_label, self.seed = ignore_label, seed

    def __call__(self, pixels, labels, position):
        random = np.random.default_rng([*self.seed, position])
        factor = random.uniform(*self.scale_range)
        size = scaled_size(labels.shape, [side * factor for side in self.scale])
        pixels, labels = resized_image(pixels, size), resized_labels(labels, size)
        rows, columns = self.part(labels, random)
        pixels, labels = pixels[rows, columns], labels[rows, columns]
        if random.random() < self.hflip:
            pixels, labels = pixels[:, ::-1], labels[:, ::-1]
        if self.is_distorted:
            pixels = distorted(pixels, random)
        return pixels, labels

    def part(self, labels, random):
        """Return the rows and columns of a crop, as slices."""
        for _ in range(TRIES):
            top, left = (int(random.integers(max(there - side, 0) + 1)) for there, side in zip(labels.shape, self.size))
            rows, columns = slice(top, top + self.size[0]), slice(left, left + self.size[1])
            counts = cv2.calcHist([labels[rows, columns]], [0], None, [256], [0, 256]).astype(np.int64)
            counts[self.ignore_label] = 0
            if (counts > 0).sum() > 1 and counts.max() < self.most_of_one_class * counts.sum():
                break
        return rows, columns


def distorted(pixels, random):
    """Return pixels uint8 (h, w, 3) of other brightness, contrast, saturation and hue, each at even odds."""
    if random.random() < 0.5:
        pixels = cv2.LUT(pixels, _table(1, random.uniform(-BRIGHTNESS, BRIGHTNESS)))
    is_contrast_first = random.random() < 0.5
    if is_contrast_first:
        pixels = _contrasted(pixels, random)
    if random.random() < 0.5:
        hues = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
        _look_up(hues, 1, _table(random.uniform(*FACTORS)))
        pixels = cv2.cvtColor(hues, cv2.COLOR_HSV2RGB)
    if random.random() < 0.5:
        hues = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
        _look_up(hues, 0, ((_VALUES.astype(np.int32) + random.integers(-HUE, HUE)) % 180).astype(np.uint8))
        pixels = cv2.cvtColor(hues, cv2.COLOR_HSV2RGB)
    return pixels if is_contrast_first else _contrasted(pixels, random)


def _contrasted(pixels, random):
    return cv2.LUT(pixels, _table(random.uniform(*FACTORS))) if random.random() < 0.5 else pixels


def _table(factor, offset=0):
    """Return what becomes of each value, uint8 (256,)."""
    return np.clip(_VALUES * np.float32(factor) + np.float32(offset), 0, 255).astype(np.uint8)


def _look_up(pixels, channel, table):
    """Replace the values of one channel."""
    cv2.insertChannel(cv2.LUT(cv2.extractChannel(pixels, channel), table), pixels, channel)


def normalised(pixels, mean, std, size=None):
    """Return pixels uint8 (h, w, 3) as float32 (3, H, W), zero around them.

    Args:
        mean, std (sequence): of each channel, pixels in 0..1.
        size (tuple): (H, W), at least that of the pixels, which lie at the top left; None: the same.
    """
    height, width = pixels.shape[:2]
    mean, std = (255 * np.asarray(numbers, np.float32) for numbers in (mean, std))
    image = np.zeros((3, *(size or (height, width))), np.float32)
    for plane, channel, table in zip(image, cv2.split(pixels), ((_VALUES[:, None] - mean) / std).T):
        plane[:height, :width] = cv2.LUT(channel, np.ascontiguousarray(table))
    return image


def padded(labels, size, ignore_label):
    """Return labels uint8 (h, w) as int32 (H, W), `ignore_label` below them and on their right."""
    height, width = labels.shape
    whole = np.full(size, ignore_label, np.int32)
    whole[:height, :width] = labels
    return whole
