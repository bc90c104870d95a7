# SPDX-License-Identifier: Apache-2.0
"""Folders of images as ImageNet has them: data_dir/SPLIT/CLASS/IMAGE, or packed. Listing them reads no image."""

import collections
import dataclasses
import os
from pathlib import Path

import mindspore.dataset as ds
import numpy as np

from src.data.cifar import FORMS, open_cifar
from src.data.damaged_list import read_damaged_list
from src.data.digits import write_digits
from src.data.image_files import (
    ENDINGS,
    count_others,
    decode_file,
    describe_others,
    is_hidden,
    is_image,
    read_file,
    shown,
)
from src.data.limited import limit_split
from src.data.mnist import open_mnist
from src.data.packed_splits import open_packed
from src.data.records import is_packed, text_of
from src.data.split import ImageSplit
from src.errors import UserError


@dataclasses.dataclass(frozen=True)
class Split(ImageSplit):
    """What a folder of images holds.

    Attributes:
        folder: its path.
        classes: sorted names of the class folders, as text; the position is the label. A name that is no UTF-8 has
            its odd bytes written out, as "caf\\xe9".
        files: (n,) bytes, CLASS/IMAGE of each image, class by class, each by the names of its images.
        labels: (n,) int32.
        empty: classes without an image.
        others: images of kinds that are not taken, counted by ending.
        left_out: how many images are left out as damaged.
    """

    folder: Path
    classes: list[str]
    files: np.ndarray
    labels: np.ndarray
    empty: tuple[str, ...] = ()
    others: dict[str, int] = dataclasses.field(default_factory=dict)
    left_out: int = 0

    @property
    def images(self):
        return len(self.files)

    @property
    def about(self):
        return {"classes": self.classes}

    def path(self, position):
        return self.folder / os.fsdecode(self.files[position])

    def read(self, order, threads):
        rows = ds.NumpySlicesDataset({"image": order, "label": self.labels[order]}, shuffle=False)
        return rows.map(self.content, "image", num_parallel_workers=threads)

    def content(self, position):
        """Return the bytes of an image, uint8 (n,)."""
        path = self.path(int(position))
        try:
            return np.frombuffer(read_file(path), np.uint8)
        except UserError as error:
            gone = [folder for folder in path.parents if not folder.exists()]
            if gone:
                raise UserError(
                    f"data folder {shown(gone[-1])} is gone (reading {shown(path)}); bring it back and go on with "
                    "--resume auto"
                ) from error
            raise

    def record(self, position):
        """Return an image as `columns` say; `UserError` where it cannot be read or decoded."""
        ((name, path),) = self.files_of(position)
        content = read_file(path)
        decode_file(path, content)
        return {"file": text_of(name), "label": int(self.labels[position]), "image": content}

    def files_of(self, position):
        """Return the file of an image as [(name, path)], the name in bytes."""
        return [(bytes(self.files[position]), self.path(position))]

    def names(self):
        """Return CLASS/IMAGE of all images, as text for paths."""
        return [os.fsdecode(file) for file in self.files]

    def list_labels(self):
        return self.labels

    def notes(self):
        return [line for line in [describe_others(self.folder, self.others)] if line]


def list_split(data, split):
    """List one split of a `DataConfig`, whichever form it has.

    Args:
        split: "train" or "val".

    Returns:
        Split; PackedSplit where the folder has a manifest, CifarSplit or MnistSplit where `data.name` says so; of
        training images a LimitedSplit of these where `data.train_limit` does.

    Raises:
        UserError: as `list_images`, `open_packed`, `open_cifar`, `open_mnist` and `read_damaged_list`, or damaged
            images are to be left out of what has no files of images.
    """
    listed = _whole_split(data, split_name(data, split))
    return limit_split(listed, data.train_limit) if split == "train" and data.train_limit else listed


def split_name(data, split):
    """Return what a `DataConfig` calls "train" or "val": its folder in `data_dir`, or a split of files."""
    return {"train": data.train_split, "val": data.val_split}[split]


def _whole_split(data, name):
    """List the folder, or the files, called `name` in the `data_dir` of a `DataConfig`."""
    if not data.data_dir:
        raise UserError("no data folder given; add --data_dir DIR, or data.data_dir to the config")
    folder = Path(data.data_dir, name)
    if data.name == "digits" and not is_packed(folder):
        write_digits(data.data_dir)
    damaged = read_damaged_list(data.damaged_list, name)
    if data.name in FORMS:
        listed = open_cifar(data.name, data.data_dir, name)
    elif data.name == "mnist":
        listed = open_mnist(data.data_dir, name, data.class_names)
    elif is_packed(folder):
        listed = open_packed(folder)
    else:
        return _without(list_images(folder), damaged)
    if damaged:
        raise UserError(
            f"{data.damaged_list} names images of {folder}, which has no files of images; "
            "give --data.damaged_list '' and, where it was packed, pack it without them"
        )
    return listed


def list_images(folder):
    """List a folder of class folders; what is hidden, litter or no image is passed over.

    Returns:
        Split.

    Raises:
        UserError: the folder is missing, holds no class folders or no image, or has images in deeper folders.
    """
    try:
        with os.scandir(folder) as entries:
            folders = [os.fsencode(entry.name) for entry in entries if entry.is_dir() and not is_hidden(entry.name)]
        by_class = {_as_text(name): (name, *_images(Path(folder, os.fsdecode(name)))) for name in folders}
    except OSError as error:
        raise UserError(
            f"cannot list data folder {error.filename} ({error.strerror}); --data_dir takes a folder that holds "
            f"{folder.name}/CLASS/IMAGE"
        ) from error
    if not by_class:
        raise UserError(f"data folder {folder} has no class folders; it takes one for each class, with its images")
    classes = sorted(by_class)
    files = [name + b"/" + image for name, images, _ in map(by_class.get, classes) for image in images]
    if not files:
        raise UserError(f"data folder {folder} has no image ({', '.join(ENDINGS)}) in its class folders; fill them")
    counts = [len(by_class[name][1]) for name in classes]
    return Split(
        folder,
        classes,
        np.array(files),
        np.repeat(np.arange(len(classes), dtype=np.int32), counts),
        tuple(name for name, count in zip(classes, counts) if not count),
        sum((collections.Counter(others) for *_, others in by_class.values()), collections.Counter()),
    )


def _without(split, damaged):
    """Return a `Split` less the images `damaged`, a set of CLASS/IMAGE."""
    if not damaged:
        return split
    stay = np.array([name not in damaged for name in split.names()])
    left_out = int(np.sum(~stay))
    return dataclasses.replace(split, files=split.files[stay], labels=split.labels[stay], left_out=left_out)


def _images(folder):
    """Return the sorted names of the images in a class folder, as bytes, and what `count_others` says of the rest."""
    images, rest = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_image(entry.name):
                images.append(os.fsencode(entry.name))
                continue
            rest.append(entry.name)
            if not is_hidden(entry.name) and entry.is_dir() and any(map(is_image, os.listdir(entry))):
                raise UserError(
                    f"images of class {folder.name} lie deeper, in {entry.path}; move or link them into {folder}"
                )
    return sorted(images), count_others(rest)


def _as_text(name):
    return name.decode("utf-8", "backslashreplace")
