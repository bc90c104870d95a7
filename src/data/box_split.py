# SPDX-License-Identifier: Apache-2.0
"""Images with boxes, and perhaps masks, of known classes: one split of a data set, as a COCO file says it."""

import dataclasses
import os
from pathlib import Path

import numpy as np

from src.data.classes import listed
from src.data.coco_file import CocoFile
from src.data.coco_masks import NONE, UnusableMask, drawn, run_lengths
from src.data.image_files import decode_file, read_file, shown
from src.errors import UserError, did_you_mean

# What a label below 0 means: a region to be ignored, and room that is not used.
IGNORED, UNUSED = -1, -2


@dataclasses.dataclass(frozen=True)
class Objects:
    """What there is in one image.

    Attributes:
        boxes: float64 (m, 4), x1, y1, x2, y2, pixels of the image as it is; they may reach beyond it.
        labels: int32 (m,), classes, or `IGNORED`.
        rows: int (m,), their rows in the file.
    """

    boxes: np.ndarray
    labels: np.ndarray
    rows: np.ndarray


@dataclasses.dataclass(frozen=True)
class BoxSplit:
    """Some images of a `CocoFile`, and which of its annotations are learned from.

    Left out are, as mmdetection does, those marked "ignore", of other categories, of no area, narrower or lower than a
    pixel, or outside of their image. Crowds are regions to be ignored; with masks so are boxes without one.

    Attributes:
        folder (Path): of the images.
        file (CocoFile): what is said of them.
        names (list): of the K classes.
        label_of: int32, the class of each category of the file, -1 for one that is none.
        kept: int (n,), which images of the file these are.
        with_masks (bool): whether masks are used.
        orientation (str): of `src.data.image_files.decode`.
        labels: int32 (A,), of each row of the file, `UNUSED` for those that are left out.
        starts: int (N + 1,), where the rows of each image of the file begin.
    """

    folder: Path
    file: CocoFile
    names: list[str]
    label_of: np.ndarray
    kept: np.ndarray
    with_masks: bool
    orientation: str
    labels: np.ndarray
    starts: np.ndarray

    @property
    def images(self):
        return len(self.kept)

    @property
    def sizes(self):
        """(n, 2): H and W of each image, pixels."""
        return self.file.sizes[self.kept]

    def size(self, position):
        """Return H and W of an image, pixels."""
        return tuple(self.file.sizes[self.kept[position]].tolist())

    def path(self, position):
        """Return the path of an image."""
        return self.folder / os.fsdecode(self.file.names[self.kept[position]])

    def image_id(self, position):
        """Return the id that an image has in the file."""
        return int(self.file.image_ids[self.kept[position]])

    def category_ids(self):
        """Return the id that each class has in the file, int64 (K,)."""
        has_class = self.label_of >= 0
        ids = np.zeros(len(self.names), np.int64)
        ids[self.label_of[has_class]] = self.file.category_ids[has_class]
        return ids

    def pixels(self, position):
        """Return an image, uint8 (H, W, 3).

        Raises:
            UserError: it cannot be used, or has another size than the file says.
        """
        path = self.path(position)
        pixels = np.asarray(decode_file(path, read_file(path), self.orientation)[0])
        said = self.size(position)
        if pixels.shape[:2] != said:
            turns = "; data.orientation turns it" if pixels.shape[:2] == said[::-1] else ""
            raise UserError(
                f"image {shown(path)} (id {self.image_id(position)}) has {pixels.shape[1]} x {pixels.shape[0]} pixels "
                f"but {self.file.path} says {said[1]} x {said[0]}; mend the file{turns}"
            )
        return pixels

    def objects(self, position):
        """Return the `Objects` of an image."""
        image = self.kept[position]
        rows = np.arange(self.starts[image], self.starts[image + 1])
        rows = rows[self.labels[rows] != UNUSED]
        boxes = self.file.rows["box"][rows]
        return Objects(np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1), self.labels[rows], rows)

    def run_lengths(self, row):
        """Return the mask of a row of the file, as `coco_masks.run_lengths` does.

        Raises:
            UserError: it cannot be drawn; names image and annotation.
        """
        try:
            size = self.file.sizes[self.file.rows["image"][row]].tolist()
            return run_lengths(*self.file.mask(row), tuple(size))
        except UnusableMask as error:
            raise UserError(f"{shown(self.file.path)}: the mask of {self.file.named(row)} {error}") from error

    def mask(self, row):
        """Return the mask of a row of the file, uint8 (H, W), all 0 where there is none; `UserError` as above."""
        if self.file.rows["mask"][row] == NONE:
            return np.zeros(self.file.sizes[self.file.rows["image"][row]], np.uint8)
        return drawn(self.run_lengths(row))

    def check_masks(self):
        """Raise `UserError` for the first mask that cannot be used, without drawing any."""
        for row in np.flatnonzero(self.file.rows["mask"] != NONE) if self.with_masks else ():
            self.run_lengths(row)

    def problems(self, position):
        """Yield what is wrong with an image, and with its masks."""
        try:
            self.pixels(position)
        except UserError as error:
            yield str(error)
        image = self.kept[position]
        for row in range(self.starts[image], self.starts[image + 1]) if self.with_masks else ():
            try:
                self.mask(row)
            except UserError as error:
                yield str(error)

    @property
    def counted(self):
        """How many boxes there are that have a class and are no region to be ignored."""
        return int((self.labels >= 0).sum())

    def notes(self):
        """Return lines on what a person may not expect."""
        file, rows = self.file, self.file.rows
        has_class, is_lost = self.label_of[rows["category"]] >= 0, self.labels == UNUSED
        parts = [
            (len(file.image_ids) - self.images, "images without a box stay out; detection.keep_empty takes them"),
            ((~has_class).sum(), "boxes are of categories that are no classes, and left out"),
            (
                (is_lost & has_class).sum(),
                "boxes have no area, are outside of their image or marked 'ignore': not learned from",
            ),
            (np.isnan(rows["area"]).sum(), "annotations have no area; that of their box is taken"),
        ]
        if self.with_masks:
            lacking = (rows["mask"] == NONE) & ~is_lost & ~rows["is_crowd"]
            parts.append((lacking.sum(), "boxes have no mask: regions to be ignored in training and by mask AP"))
        notes = [f"{shown(file.path)}: {count} {text}" for count, text in parts if count]
        counts = np.bincount(self.labels[self.labels >= 0], minlength=len(self.names))
        absent = [name for name, count in zip(self.names, counts) if not count]
        if absent:
            notes.append(
                f"{shown(file.path)}: {len(absent)} of {len(self.names)} classes have no box: {listed(absent)}"
            )
        return notes


def split_of(folder, file, names, with_masks, orientation="ignore", keep_empty=True):
    """Return the `BoxSplit` of a file.

    Args:
        folder (Path): of its images.
        file (CocoFile): what is said of them.
        names (list): of the classes, each that of one category of the file.
        with_masks (bool), orientation (str): see `BoxSplit`.
        keep_empty (bool): whether images without anything to learn from, or to ignore, are taken too.

    Raises:
        UserError: a class is no category of the file.
    """
    label_of = labels_of(file, names)
    rows, sizes = file.rows, file.sizes[file.rows["image"]]
    (x, y, width, height), area = rows["box"].T, areas_of(file)
    is_inside = (x < sizes[:, 1]) & (y < sizes[:, 0]) & (x + width > 0) & (y + height > 0)
    is_box = is_inside & (area > 0) & (width >= 1) & (height >= 1) & ~rows["is_ignored"]
    is_region = rows["is_crowd"] | ((rows["mask"] == NONE) & with_masks)
    labels = label_of[rows["category"]]
    labels = np.where(is_box & (labels >= 0), np.where(is_region, IGNORED, labels), UNUSED).astype(np.int32)
    starts = np.searchsorted(rows["image"], np.arange(len(file.image_ids) + 1))
    kept = np.arange(len(file.image_ids))
    if not keep_empty:
        kept = np.unique(rows["image"][labels != UNUSED]).astype(kept.dtype)
    return BoxSplit(Path(folder), file, list(names), label_of, kept, with_masks, orientation, labels, starts)


def labels_of(file, names):
    """Return the class of each category of a `CocoFile`, found by name, int32 (K,), -1 where it is none of `names`.

    Raises:
        UserError: the file has no category of such a name.
    """
    labels = np.full(len(file.category_ids), -1, np.int32)
    for label, name in enumerate(names):
        if name not in file.category_names:
            near = did_you_mean(name, file.category_names)
            raise UserError(
                f"{shown(file.path)} has no category '{name}', which is one of the classes{near}; mend its name there, "
                f"or in detection.class_names; it has {listed(file.category_names)}"
            )
        labels[file.category_names.index(name)] = label
    return labels


def areas_of(file):
    """Return the area of each annotation of a `CocoFile`, (A,), that of its box where none is given."""
    area = file.rows["area"]
    return np.where(np.isnan(area), file.rows["box"][:, 2] * file.rows["box"][:, 3], area)
