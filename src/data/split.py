# SPDX-License-Identifier: Apache-2.0
"""What every source of images has: classes, a number of images, and a way to read those of given positions."""

import numpy as np


class ImageSplit:
    """Images with labels: one split of a data set, in whatever form.

    A subclass has `folder`, a path for messages; `classes`, their names, whose position is the label; `images`, how
    many there are; and `read`.

    Attributes:
        empty: classes that have no image.
        columns: what a record has once it is packed, see `records.Records`.
    """

    empty = ()
    columns = {"file": "string", "label": "int32", "image": "bytes"}

    def read(self, order, threads):
        """Return a MindSpore data set of columns "image" and "label" (int32, ()).

        Args:
            order: positions of the images to give, 0..images-1.
            threads: how many read.

        An image is uint8: the bytes of a file (n,), or pixels (H, W, 3) or of grey (H, W).
        """
        raise NotImplementedError

    def path(self, position):
        """Return the path of an image, for messages."""
        return self.folder / f"image {position}"

    def notes(self):
        """Return lines on what a person may not expect."""
        return []

    def list_labels(self):
        """Return the label of each image, int (n,)."""
        labels = self.read(np.arange(self.images), 1).project("label")
        return np.array([label for (label,) in labels.create_tuple_iterator(num_epochs=1, output_numpy=True)], int)

    def counts(self):
        """Return how many images each class has, int (K,)."""
        return np.bincount(self.list_labels(), minlength=len(self.classes))
