# SPDX-License-Identifier: Apache-2.0
"""Packed records, read as the split that they were packed from."""

import dataclasses

import mindspore.dataset as ds
import numpy as np

from src.data.labels import Labels
from src.data.pixel_split import PixelSplit
from src.data.records import Records, open_records
from src.data.split import ImageSplit


@dataclasses.dataclass(frozen=True)
class _Packed:
    """What every packed split has."""

    records: Records

    @property
    def folder(self):
        return self.records.folder

    @property
    def images(self):
        return self.records.images


@dataclasses.dataclass(frozen=True)
class PackedSplit(_Packed, ImageSplit):
    """Images with labels; used as `image_folder.Split` is."""

    @property
    def classes(self):
        return self.records.about["classes"]

    def read(self, order, threads):
        return self.records.rows(["image", "label"], order, threads)

    def path(self, position):
        return self.records.path("file", position)

    def list_labels(self):
        labels = self.records.rows(["label"], range(self.images)).create_tuple_iterator(num_epochs=1, output_numpy=True)
        return np.array([int(label) for (label,) in labels])


@dataclasses.dataclass(frozen=True)
class PackedPairs(_Packed, PixelSplit):
    """Images and masks; used as `pixel_folder.PairSplit` is."""

    labels: Labels
    orientation: str

    def read(self, order, threads):
        positions = ds.NumpySlicesDataset({"position": np.asarray(order, np.int32)}, shuffle=False)
        return ds.zip((self.records.rows(["image", "mask"], order, threads), positions))

    def problems(self, order, threads):
        return self.read(order, threads).map(self.problem, ["image", "mask", "position"], ["problem"], threads)

    def path(self, position):
        return self.records.path("file", position)

    def mask_path(self, position):
        return self.records.path("mask_file", position)


def open_packed(folder):
    """Return the `PackedSplit` of a folder.

    Raises:
        UserError: as `open_records`.
    """
    return PackedSplit(open_records(folder, PackedSplit.columns, ["classes"]))


def open_packed_pairs(folder, labels, orientation):
    """Return the `PackedPairs` of a folder, whose masks mean `labels`.

    Raises:
        UserError: as `open_records`.
    """
    return PackedPairs(open_records(folder, PackedPairs.columns), labels, orientation)
