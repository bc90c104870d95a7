# SPDX-License-Identifier: Apache-2.0
"""What every source of images and masks has: how many they are, and a way to read and decode some of them."""

import numpy as np

from src.data.image_files import UnusableImage, decode, shown
from src.errors import UserError


class PixelSplit:
    """Images whose pixels have classes: one split of a data set, in whatever form.

    A subclass has `folder`, a path for messages; `images`, how many there are; `labels`, the `Labels` of the masks;
    `orientation`, of `src.data.image_files.decode`; and the methods that are not here.

    Attributes:
        columns: what a record has once it is packed, see `records.Records`.
    """

    columns = {"file": "string", "mask_file": "string", "image": "bytes", "mask": "bytes"}

    def read(self, order, threads):
        """Return a MindSpore data set of columns "image" and "mask", the bytes of files, uint8 (n,), and "position".

        Args:
            order: positions of the images to give.
            threads: how many read.
        """
        raise NotImplementedError

    def problems(self, order, threads):
        """Return a MindSpore data set of column "problem", what is wrong with each pair, "" if nothing; as `read`."""
        raise NotImplementedError

    def path(self, position):
        """Return the path of an image, for messages."""
        raise NotImplementedError

    def mask_path(self, position):
        """Return the path of its mask, for messages."""
        raise NotImplementedError

    def notes(self):
        """Return lines on what a person may not expect."""
        return []

    def decoded(self, image, mask, position):
        """Return the pixels, uint8 (H, W, 3), and the labels, uint8 (H, W), in the bytes of two files.

        Raises:
            UserError: one of them cannot be used; names it.
        """
        try:
            pixels = np.asarray(decode(bytes(image), self.orientation)[0])
        except UnusableImage as error:
            raise UserError(f"image {shown(self.path(position))} {error}") from error
        try:
            return pixels, self.labels.of(bytes(mask), pixels.shape[:2])
        except UnusableImage as error:
            raise UserError(f"mask {shown(self.mask_path(position))} {error}") from error

    def problem(self, image, mask, position):
        """Return what is wrong with a pair, as an array of text, "" if nothing."""
        try:
            self.decoded(image, mask, int(position))
        except UserError as error:
            return np.array(str(error))
        return np.array("")
