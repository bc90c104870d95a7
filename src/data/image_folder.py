# SPDX-License-Identifier: Apache-2.0
"""Folders of images as ImageNet has them: data_dir/SPLIT/CLASS/IMAGE, or packed. Listing them reads no image."""

import collections
import dataclasses
import os
from pathlib import Path

import mindspore.dataset as ds

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
        images: how many images all classes have together.
        extensions: how the image names end, as written (".JPEG").
    """

    folder: Path
    classes: list[str]
    images: int
    extensions: list[str]

    def encoded(self, order, threads):
        """Return a data set of columns "image" (the bytes of a file) and "label" (int32, ()).

        Args:
            order: positions of the images to give, 0..images-1: class by class, each by the names of its images.
            threads: how many read.
        """
        return ds.ImageFolderDataset(
            str(self.folder),
            num_parallel_workers=threads,
            sampler=ds.SubsetSampler(order.tolist()),
            extensions=self.extensions,
            class_indexing={name: label for label, name in enumerate(self.classes)},
        )

    def files(self):
        """Return the images as (CLASS/IMAGE, label), in their order."""
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
        Split, or PackedSplit where the folder has a manifest.

    Raises:
        UserError: as `list_images` and `open_packed`.
    """
    if not data.data_dir:
        raise UserError("no data folder given; add --data_dir DIR, or data.data_dir to the config")
    if data.name == "digits":
        write_digits(data.data_dir)
    folder = Path(data.data_dir) / {"train": data.train_split, "val": data.val_split}[split]
    return open_packed(folder) if (folder / MANIFEST).is_file() else list_images(folder)


def list_images(folder):
    """List a folder of class folders; hidden folders and files that are no images are passed over.

    Returns:
        Split.

    Raises:
        UserError: the folder is missing, or holds no class folders, or one of them has no image.
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
    """Return the class names of "train" or "val", in the order of their labels; `UserError` as `list_split`."""
    return list_split(data, split).classes


def check_image_folder(data, num_classes, splits=("train", "val")):
    """Check that the splits of a `DataConfig` have the same `num_classes` classes.

    Returns:
        list[str]: the class names, in the order of their labels.

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
            f"{first.folder} has {len(first.classes)} class folders but model.num_classes is {num_classes}; "
            f"give --model.num_classes {len(first.classes)} or another --data_dir"
        )
    return first.classes


def _endings(folder):
    """Count the images in `folder` by how their names end."""
    endings = (os.path.splitext(name)[1] for name in os.listdir(folder))
    return collections.Counter(ending for ending in endings if ending.lower() in IMAGE_TYPES)
