# SPDX-License-Identifier: Apache-2.0
"""From an image of any size to one of the network's: a random part of it in training, its centre in evaluation.

Pillow resizes, as in the published code: it averages over all pixels that shrink into one, which MindSpore's bilinear
and bicubic resizing do not.
"""

import math

import numpy as np
from PIL import Image

from src.data.image_files import MOST_PIXELS, UnusableImage

INTERPOLATION = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}
# Crops that are drawn before the centre is taken, of an image too long for most.
_TRIES = 10


class RandomCrop:
    """A random part of an image (Szegedy et al., arXiv 1409.4842), resized; the same for a position, seed and epoch.

    Args:
        size (tuple): (H, W) of the result, pixels.
        scale (sequence): least and greatest area of the part, over that of the image.
        ratio (sequence): least and greatest width / height of the part, over that of the result.
        interpolation (str): one of `INTERPOLATION`.
        seed (sequence): of whole numbers.
    """

    def __init__(self, size, scale, ratio, interpolation, seed):
        self.size, self.scale, self.seed = size, scale, seed
        self.ratio = [side * size[1] / size[0] for side in ratio]
        self.filter = INTERPOLATION[interpolation]

    def __call__(self, image, position):
        left, top, width, height = self.part(*image.size, np.random.default_rng([*self.seed, position]))
        part = image.crop((left, top, left + width, top + height))
        return part.resize(self.size[::-1], self.filter)

    def part(self, width, height, random):
        """Return left, top, width and height of the part of an image, pixels."""
        for _ in range(_TRIES):
            area = width * height * random.uniform(*self.scale)
            ratio = math.exp(random.uniform(*map(math.log, self.ratio)))
            across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < across <= width and 0 < down <= height:
                return random.integers(width - across + 1), random.integers(height - down + 1), across, down
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        across, down = min(width, round(height * ratio) or 1), min(height, round(width / ratio) or 1)
        return (width - across) // 2, (height - down) // 2, across, down


class CentreCrop:
    """An image scaled to cover a rectangle of the result's proportions, and the centre of it.

    Where that is smaller than the result, it lies in the middle of black pixels.

    Args:
        size (tuple): (H, W) of the result, pixels.
        resize (int): shorter side of the rectangle, pixels; where H = W, that of the scaled image.
        interpolation (str): one of `INTERPOLATION`.
    """

    def __init__(self, size, resize, interpolation):
        self.size = size
        self.cover = [round(side * resize / min(size)) for side in size]
        self.filter = INTERPOLATION[interpolation]

    def __call__(self, image, position=None):
        (width, height), (down, across) = image.size, self.cover
        if width * down >= height * across:
            across = width * down // height
        else:
            down = height * across // width
        # A strip becomes longer, too.
        if across * down > MOST_PIXELS:
            raise UnusableImage(
                f"has {width} x {height} pixels, resized {across} x {down}, more than {MOST_PIXELS}; "
                "replace or remove it"
            )
        top, left = (down - self.size[0]) // 2, (across - self.size[1]) // 2
        if image.size != (across, down):
            image = image.resize((across, down), self.filter)
        return image.crop((left, top, left + self.size[1], top + self.size[0]))
