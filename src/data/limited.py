# SPDX-License-Identifier: Apache-2.0
"""A few images of each class of a split, for small studies: `data.train_limit`."""

import dataclasses

import numpy as np

from src.data.classes import listed
from src.data.split import ImageSplit


@dataclasses.dataclass(frozen=True)
class LimitedSplit(ImageSplit):
    """At most so many images of each class of another split, whatever its form.

    Attributes:
        whole (ImageSplit): the other one.
        limit: images of a class.
        positions: of the images in it, ascending, int (n,).
    """

    whole: ImageSplit
    limit: int
    positions: np.ndarray

    @property
    def folder(self):
        return self.whole.folder

    @property
    def classes(self):
        return self.whole.classes

    @property
    def empty(self):
        return self.whole.empty

    @property
    def images(self):
        return len(self.positions)

    def read(self, order, threads):
        return self.whole.read(self.positions[order], threads)

    def list_labels(self):
        return self.whole.list_labels()[self.positions]

    def path(self, position):
        return self.whole.path(self.positions[position])

    def notes(self):
        fewer = [name for name, count in zip(self.classes, self.counts()) if count < self.limit]
        line = (
            f"{self.folder}: {self.images} of {self.whole.images} images, at most {self.limit} a class "
            "(data.train_limit), the same for every seed"
        )
        return [*self.whole.notes(), line + (f"; {len(fewer)} classes have fewer: {listed(fewer)}" if fewer else "")]


def limit_split(whole, limit):
    """Return the `LimitedSplit` of at most `limit` images, from 1, of each class of an `ImageSplit`.

    They are drawn by their positions alone, so that they are the same for every seed, and those of a larger limit hold
    those of a smaller one.
    """
    drawn = np.random.default_rng(0).permutation(whole.images)
    labels = whole.list_labels()[drawn]
    of_class = [drawn[labels == label][:limit] for label in range(len(whole.classes))]
    return LimitedSplit(whole, limit, np.sort(np.concatenate(of_class)))
