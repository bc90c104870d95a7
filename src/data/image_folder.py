# SPDX-License-Identifier: Apache-2.0
"""Folders of images as ImageNet has them: data_dir/SPLIT/CLASS/IMAGE, or packed. Listing them reads no image."""

import collections
import dataclasses
import os
from pathlib import Path

import mindspore.dataset as ds
import numpy as np

from src.data.cifar import FORMS, open_cifar
from src.data.class_names import name_classes
from src.data.damaged_list import read_damaged_list
from src.data.digits import write_digits
from src.data.records import MANIFEST, open_packed
from src.errors import UserError

IMAGE_TYPES = (".jpeg", ".jpg", ".png", ".bmp")


@dataclasses.dataclass(frozen=True)
class Split:
    """What a folder of images holds.

    Attributes:
        folder: its path.
        classes: sorted names of the class folders; the position is the label.
        images: how many images all classes have together, less those left out.
        extensions: how the image names end, as written (".JPEG").
        left_out: positions of damaged images among all.
        decoded: False: the images come as the bytes of files.
    """

    folder: Path
    classes: list[str]
    images: int
    extensions: list[str]
    left_out: tuple[int, ...] = ()
    decoded = False

    def read(self, order, threads):
        """Return a data set of columns "image" (the bytes of a file) and "label" (int32, ()).

        Args:
            order: positions of the images to give, 0..images-1: class by class, each by the names of its images.
            threads: how many read.
        """
        if self.left_out:
            order = np.delete(np.arange(self.images + len(self.left_out)), self.left_out)[order]
        return ds.ImageFolderDataset(
            str(self.folder),
            num_parallel_workers=threads,
            sampler=ds.SubsetSampler(order.tolist()),
            extensions=self.extensions,
            class_indexing={name: label for label, name in enumerate(self.classes)},
        )

    def files(self):
        """Return all images as (CLASS/IMAGE, label), in their order."""
        return [
            (f"{name}/{image}", label)
            for label, name in enumerate(self.classes)
            for image in sorted(os.listdir(self.folder / name))
            if os.path.splitext(image)[1] in self.extensions
        ]


def list_split(data, split):
    """List one split of a `DataConfig`, whichever form it has.

    Args:
        split: "train" or "val".

    Returns:
        Split; PackedSplit where the folder has a manifest, CifarSplit where `data.name` says so.

    Raises:
        UserError: as `list_images`, `open_packed`, `open_cifar` and `read_damaged_list`, or damaged images are to be
            left out of what has no files of images.
    """
    if not data.data_dir:
        raise UserError("no data folder given; add --data_dir DIR, or data.data_dir to the config")
    if data.name == "digits":
        write_digits(data.data_dir)
    name = split_name(data, split)
    folder = Path(data.data_dir, name)
    damaged = read_damaged_list(data.damaged_list, name)
    if data.name in FORMS:
        listed = open_cifar(data.name, data.data_dir, name)
    elif (folder / MANIFEST).is_file():
        listed = open_packed(folder)
    else:
        return _without(list_images(folder), damaged)
    if damaged:
        raise UserError(
            f"{data.damaged_list} names images of {folder}, which has no files of images; "
            "give --data.damaged_list '' and, where it was packed, pack it without them"
        )
    return listed


def split_name(data, split):
    """Return what a `DataConfig` calls "train" or "val": its folder in `data_dir`, or a split of CIFAR."""
    return {"train": data.train_split, "val": data.val_split}[split]


def list_images(folder):
    """List a folder of class folders; hidden folders and files that are no images are passed over.

    Returns:
        Split.

    Raises:
        UserError: the folder is missing, or holds no class folders, or one of them has no image, or has some deeper.
    """
    try:
        with os.scandir(folder) as entries:
            classes = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
        endings = {name: _endings(folder / name) for name in classes}
    except OSError as error:
        raise UserError(
            f"cannot list data folder {error.filename} ({error.strerror}); --data_dir takes a folder that holds "
            f"{folder.name}/CLASS/IMAGE"
        ) from error
    if not classes:
        raise UserError(f"data folder {folder} has no class folders; it takes one for each class, with its images")
    for name, counts in endings.items():
        if not counts:
            raise UserError(f"class folder {folder / name} has no image ({', '.join(IMAGE_TYPES)}); fill or remove it")
    total = sum(endings.values(), collections.Counter())
    return Split(folder, classes, sum(total.values()), sorted(total))


def class_names(data, split):
    """Return the class names of "train" or "val" (`name_classes`), by label; `UserError` as `list_split`."""
    return name_classes(data.data_dir, list_split(data, split).classes)


def check_image_folder(data, num_classes, splits=("train", "val")):
    """Check that the splits of a `DataConfig` have the same `num_classes` classes.

    Returns:
        list[str]: the class names (`name_classes`), in the order of their labels.

    Raises:
        UserError: a missing or empty folder, different classes in the splits, or not `num_classes` of them.
    """
    first, *others = [list_split(data, split) for split in splits]
    for other in others:
        odd = sorted(set(first.classes) ^ set(other.classes))
        if odd:
            has, lacks = (first, other) if odd[0] in first.classes else (other, first)
            raise UserError(
                f"class '{odd[0]}' is in {has.folder} but not in {lacks.folder}; both take the same classes"
            )
    if len(first.classes) != num_classes:
        raise UserError(
            f"{first.folder} has {len(first.classes)} classes but model.num_classes is {num_classes}; "
            f"give --model.num_classes {len(first.classes)} or another --data_dir"
        )
    return name_classes(data.data_dir, first.classes)


def _without(listed, damaged):
    """Return a `Split` less the images `damaged`, a set of CLASS/IMAGE."""
    if not damaged:
        return listed
    left_out = tuple(position for position, (file, _) in enumerate(listed.files()) if file in damaged)
    return dataclasses.replace(listed, images=listed.images - len(left_out), left_out=left_out)


def _endings(folder):
    """Count the images in `folder` by how their names end; `UserError` if a folder in it has images, too."""
    counts = collections.Counter()
    with os.scandir(folder) as entries:
        for entry in entries:
            ending = os.path.splitext(entry.name)[1]
            if _is_image(entry.name):
                counts[ending] += 1
            elif not entry.name.startswith(".") and entry.is_dir() and any(map(_is_image, os.listdir(entry))):
                raise UserError(
                    f"images of class {folder.name} lie deeper, in {entry.path}; move or link them into {folder}"
                )
    return counts


def _is_image(name):
    return os.path.splitext(name)[1].lower() in IMAGE_TYPES
