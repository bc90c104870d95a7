# SPDX-License-Identifier: Apache-2.0
"""What the pixels of masks mean."""

import io

import cv2
import numpy as np
from PIL import Image

from src.data.image_files import UnusableImage


class Labels:
    """What the pixels of a mask mean.

    Args:
        classes (int): K; labels are 0 to K - 1.
        ignore_label (int): of pixels without a class.
        reduce_zero_label (bool): in the files 0 has no class, and 1 is the first.
    """

    def __init__(self, classes, ignore_label=255, reduce_zero_label=False):
        self.classes, self.ignore_label, self.reduce_zero_label = classes, ignore_label, reduce_zero_label
        # For each value of a file.
        values = np.arange(256)
        self._has_class = (values != ignore_label) & (values >= reduce_zero_label)
        self._labels = np.where(self._has_class, values - reduce_zero_label, ignore_label).astype(np.uint8)

    def of(self, content, size):
        """Return the labels in the bytes of a mask file, uint8 (H, W).

        Args:
            size (tuple): (H, W) of its image.

        Raises:
            UnusableImage: it is no image of numbers of classes, has another size, or a number that is no class.
        """
        try:
            image = Image.open(io.BytesIO(content), formats=("PNG",))
            image.load()
        except Exception as error:  # a damaged file can raise anything
            raise UnusableImage("is no PNG, or truncated or damaged; replace it") from error
        if image.mode not in ("L", "P", "1"):
            raise UnusableImage(
                f"is a picture of mode {image.mode}, not one of numbers of classes; convert it to a "
                "PNG of 8 bits, grey or with a palette, whose values are the classes"
            )
        values = np.asarray(image) if image.mode != "1" else np.asarray(image.convert("L")) // 255
        if values.shape != tuple(size):
            height, width = size
            raise UnusableImage(
                f"has {values.shape[1]} x {values.shape[0]} pixels but its image {width} x {height}; replace one of "
                "them"
            )
        wrong = cv2.calcHist([values], [0], None, [256], [0, 256]).ravel() > 0
        wrong &= self._has_class & (self._labels >= self.classes)
        if wrong.any():
            worst = np.flatnonzero(wrong)[-1]
            largest = self.classes - 1 + self.reduce_zero_label
            raise UnusableImage(
                f"has the value {worst} but the largest class is {largest} (model.num_classes {self.classes}, "
                f"segmentation.reduce_zero_label {str(self.reduce_zero_label).lower()}); mend the mask, or these "
                "settings"
            )
        return cv2.LUT(values, self._labels)
