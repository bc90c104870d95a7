# SPDX-License-Identifier: Apache-2.0
"""Folders of images and of masks, as ADE20K has them: each mask a PNG file whose pixels are numbers of classes."""

import dataclasses
import io
import os
from pathlib import Path

import mindspore.dataset as ds
import numpy as np
from PIL import Image

from src.data.classes import listed
from src.data.image_files import count_others, describe_others, is_hidden, is_image, read_file, shown
from src.errors import UserError


@dataclasses.dataclass(frozen=True)
class PixelSplit:
    """One split of a data set whose pixels have classes.

    Attributes:
        folder, mask_folder: paths.
        image_files, mask_files: (n,) bytes, the files in them, those of a pair at the same position.
        others: images of kinds that are not taken, counted by ending.
    """

    folder: Path
    mask_folder: Path
    image_files: np.ndarray
    mask_files: np.ndarray
    others: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def images(self):
        return len(self.image_files)

    def path(self, position):
        """Return the path of an image."""
        return self.folder / os.fsdecode(self.image_files[position])

    def mask_path(self, position):
        """Return the path of its mask."""
        return self.mask_folder / os.fsdecode(self.mask_files[position])

    def read(self, order, threads):
        """Return a MindSpore data set of columns "image" and "mask", the bytes of files, uint8 (n,), and "position".

        Args:
            order: positions of the images to give.
            threads: how many read.
        """
        rows = ds.NumpySlicesDataset({"position": np.asarray(order, np.int32)}, shuffle=False)
        return rows.map(self.content, "position", ["image", "mask", "position"], num_parallel_workers=threads)

    def content(self, position):
        paths = self.path(int(position)), self.mask_path(int(position))
        return (*(np.frombuffer(read_file(path), np.uint8) for path in paths), position)

    def notes(self):
        """Return lines on what a person may not expect."""
        return [line for line in [describe_others(self.folder, self.others)] if line]


def list_pairs(image_folder, mask_folder):
    """List images and their masks, which have the same names but for the ending, in folders below too.

    Returns:
        PixelSplit, in the order of the names.

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
    return PixelSplit(image_folder, mask_folder, *files, others)


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


class Labels:
    """What the pixels of a mask mean.

    Args:
        classes (int): K; labels are 0 to K - 1.
        ignore_label (int): of pixels without a class.
        reduce_zero_label (bool): in the files 0 has no class, and 1 is the first.
    """

    def __init__(self, classes, ignore_label=255, reduce_zero_label=False):
        self.classes, self.ignore_label, self.reduce_zero_label = classes, ignore_label, reduce_zero_label

    def of(self, content, path, size):
        """Return the labels in the bytes of a mask file, uint8 (H, W).

        Args:
            path: for messages.
            size (tuple): (H, W) of its image.

        Raises:
            UserError: it is no image of numbers of classes, has another size, or a number that is no class.
        """
        try:
            image = Image.open(io.BytesIO(content), formats=("PNG",))
            image.load()
        except Exception as error:  # a damaged file can raise anything
            raise UserError(f"mask {shown(path)} is no PNG, or truncated or damaged; replace it") from error
        if image.mode not in ("L", "P", "1"):
            raise UserError(
                f"mask {shown(path)} is a picture of mode {image.mode}, not one of numbers of classes; convert it to a "
                "PNG of 8 bits, grey or with a palette, whose values are the classes"
            )
        values = np.asarray(image if image.mode != "1" else image.convert("L")).copy()
        if image.mode == "1":
            values //= 255
        if values.shape != tuple(size):
            height, width = size
            raise UserError(
                f"mask {shown(path)} has {values.shape[1]} x {values.shape[0]} pixels but its image "
                f"{width} x {height}; replace one of them"
            )
        has_class = values != self.ignore_label
        if self.reduce_zero_label:
            has_class &= values != 0
            values -= 1  # 0 becomes 255
        if values.max(initial=0, where=has_class) >= self.classes:
            worst = int(values.max(initial=0, where=has_class)) + self.reduce_zero_label
            largest = self.classes - 1 + self.reduce_zero_label
            raise UserError(
                f"mask {shown(path)} has the value {worst} but the largest class is {largest} ("
                f"model.num_classes {self.classes}, segmentation.reduce_zero_label "
                f"{str(self.reduce_zero_label).lower()}); mend the mask, or these settings"
            )
        values[~has_class] = self.ignore_label
        return values
