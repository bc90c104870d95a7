# SPDX-License-Identifier: Apache-2.0
"""Folders of images and of masks, as ADE20K has them: each mask a PNG file whose pixels are numbers of classes."""

import dataclasses
import os
from pathlib import Path

import mindspore.dataset as ds
import numpy as np

from src.data.classes import listed
from src.data.image_files import count_others, describe_others, is_hidden, is_image, read_file, shown
from src.data.labels import Labels
from src.data.pixel_split import PixelSplit
from src.data.records import text_of
from src.errors import UserError


@dataclasses.dataclass(frozen=True)
class PairSplit(PixelSplit):
    """What a folder of images and a folder of masks hold.

    Attributes:
        folder, mask_folder: paths.
        image_files, mask_files: (n,) bytes, the files in them, those of a pair at the same position.
        labels: what the masks mean.
        orientation: of `src.data.image_files.decode`.
        others: images of kinds that are not taken, counted by ending.
    """

    about = {}

    folder: Path
    mask_folder: Path
    image_files: np.ndarray
    mask_files: np.ndarray
    labels: Labels
    orientation: str = "ignore"
    others: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def images(self):
        return len(self.image_files)

    def path(self, position):
        return self.folder / os.fsdecode(self.image_files[position])

    def mask_path(self, position):
        return self.mask_folder / os.fsdecode(self.mask_files[position])

    def read(self, order, threads):
        return self._positions(order).map(self._content, "position", ["image", "mask", "position"], threads)

    def problems(self, order, threads):
        return self._positions(order).map(self._problem, "position", ["problem"], threads)

    def files_of(self, position):
        """Return the two files of a pair as (name, path), the name in bytes."""
        names = self.image_files[position], self.mask_files[position]
        return list(zip(map(bytes, names), (self.path(position), self.mask_path(position))))

    def record(self, position):
        """Return a pair as `columns` say; `UserError` names what is wrong with it."""
        (image_name, image_path), (mask_name, mask_path) = self.files_of(position)
        image, mask = read_file(image_path), read_file(mask_path)
        self.decoded(image, mask, position)
        return {"file": text_of(image_name), "mask_file": text_of(mask_name), "image": image, "mask": mask}

    def _positions(self, order):
        return ds.NumpySlicesDataset({"position": np.asarray(order, np.int32)}, shuffle=False)

    def _content(self, position):
        paths = self.path(int(position)), self.mask_path(int(position))
        return (*(np.frombuffer(read_file(path), np.uint8) for path in paths), position)

    def _problem(self, position):
        try:
            return self.problem(*self._content(position))
        except UserError as error:
            return np.array(str(error))

    def notes(self):
        return [line for line in [describe_others(self.folder, self.others)] if line]


def list_pairs(image_folder, mask_folder, labels, orientation="ignore"):
    """List images and their masks, which have the same names but for the ending, in folders below too.

    Args:
        labels (Labels): what the masks mean.
        orientation (str): of `src.data.image_files.decode`.

    Returns:
        PairSplit, in the order of the names.

    Raises:
        UserError: a folder is missing or empty, or an image has no mask, or a mask no image.
    """
    image_folder, mask_folder = Path(image_folder), Path(mask_folder)
    images, others = _files(image_folder, is_image)
    masks, _ = _files(mask_folder, lambda name: name.lower().endswith(".png") and not is_hidden(name))
    for found, what, folder in ((images, "image", image_folder), (masks, "mask (.png)", mask_folder)):
        if not found:
            raise UserError(f"{shown(folder)} has no {what}; give other folders in section segmentation")
    for one, other, what, lacking, folder in (
        (images, masks, "image", "mask", mask_folder),
        (masks, images, "mask", "image", image_folder),
    ):
        alone = sorted(one.keys() - other.keys())
        if alone:
            some = listed([shown(os.fsdecode(one[name])) for name in alone])
            raise UserError(f"{what} without {lacking} in {shown(folder)}: {some}; add it, or remove the {what}")
    names = sorted(images)
    files = (np.array([found[name] for name in names]) for found in (images, masks))
    return PairSplit(image_folder, mask_folder, *files, labels, orientation, others)


def _files(folder, is_taken):
    """Return {name without its ending: file}, as bytes below `folder`, and what `count_others` says of the rest."""
    found, rest = {}, []

    def refuse(error):
        raise UserError(
            f"cannot list data folder {shown(error.filename)} ({error.strerror}); --data_dir takes a folder that holds "
            "those of section segmentation"
        ) from error

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not is_hidden(name)]
        for name in files:
            file = os.fsencode(os.path.relpath(os.path.join(place, name), folder))
            if not is_taken(name):
                rest.append(name)
            elif (stem := os.path.splitext(file)[0]) in found:
                both = f"{shown(os.fsdecode(found[stem]))} and {shown(os.fsdecode(file))}"
                raise UserError(f"{shown(folder)} has both {both}; remove one of them")
            else:
                found[stem] = file
    return found, count_others(rest)
