# SPDX-License-Identifier: Apache-2.0
"""What the numbers of classes stand for, and how those of a folder become those of a network: by name."""

import itertools
from dataclasses import dataclass

import numpy as np

from src.data.class_names import name_classes
from src.errors import UserError

_SHOWN = 5


@dataclass(frozen=True)
class Classes:
    """The classes that a network was trained on, by their numbers.

    Attributes:
        folders (list | None): the names of their folders, which tell them apart; None where only numbers are known, as
            of weights that were converted.
        names (list): what people read: of `class_names.txt`, else the folders.
    """

    folders: list | None
    names: list

    @classmethod
    def of(cls, data, images):
        """Return the classes of `images` (ImageSplit) of a `DataConfig`; `UserError` as `name_classes`."""
        return cls(images.classes, name_classes(data.data_dir, images.classes))

    @classmethod
    def recorded(cls, content, count):
        """Return the classes that the `meta` of a checkpoint records (`to_record`), of a network with `count` many."""
        folders = content.get("classes")
        if folders is None:
            return cls(None, [str(number) for number in range(count)])
        return cls(folders, content.get("class_names", folders))

    def to_record(self):
        """Return what `recorded` reads, as JSON values."""
        return {"classes": self.folders, "class_names": self.names}

    def numbers_of(self, other, folder, whose):
        """Return the number here of each class of a folder, as an int32 array.

        Classes are found by the names of their folders, or by those that people read; the folder may have fewer. Where
        only numbers are known it has to have as many, and they are taken in its order.

        Args:
            other (Classes): of the folder.
            folder, whose (str): where they lie, and whose classes these are, for the message.

        Raises:
            UserError: the folder has other classes.
        """
        if self.folders is None:
            if len(other.folders) != len(self.names):
                raise UserError(
                    f"{folder} has {len(other.folders)} classes but {whose} has {len(self.names)} and does not say "
                    "their names; give a folder of all of them, empty ones too"
                )
            return np.arange(len(self.names), dtype=np.int32)
        for theirs, ours in itertools.product((other.folders, other.names), (self.folders, self.names)):
            numbers = {name: number for number, name in enumerate(ours)}
            if len(numbers) == len(ours) and len({*theirs}) == len(theirs) and {*theirs} <= {*numbers}:
                return np.array([numbers[name] for name in theirs], np.int32)
        stranger = next((name for name in other.folders if name not in self.folders), other.folders[0])
        raise UserError(
            f"class '{stranger}' of {folder} is none of {whose}, which has {listed(self.names)}; "
            "give the folder of the classes it was trained on"
        )


def numbers_of_split(known, data, images, whose):
    """Return `Classes.numbers_of` for `images` (ImageSplit) of a `DataConfig`, and lines on what one may not expect.

    A class without an image has number -1 where `known` has no such class.

    Raises:
        UserError: as `Classes.numbers_of`.
    """
    other = Classes.of(data, images)
    has_images = np.array([name not in images.empty for name in images.classes])
    if known.folders is not None:
        # A folder without an image may have any name.
        other = Classes(
            *([name for name, has in zip(names, has_images) if has] for names in (other.folders, other.names))
        )
    numbers = np.full(len(images.classes), -1, np.int32)
    numbers[slice(None) if known.folders is None else has_images] = known.numbers_of(other, images.folder, whose)
    present = {*numbers[has_images].tolist()}
    absent = [name for number, name in enumerate(known.names) if number not in present]
    notes = images.notes()
    if absent:
        notes.append(f"{images.folder} has no image of {len(absent)} of {len(known.names)} classes: {listed(absent)}")
    if all(name.isdecimal() for name in images.classes):
        by_number = sorted(images.classes, key=int)
        if images.classes != by_number:
            first, number = next((a, k) for k, (a, b) in enumerate(zip(images.classes, by_number)) if a != b)
            notes.append(
                f"{images.folder}: folders that are numbers are sorted as text: '{first}' is class {number}; "
                + ("is it that in the checkpoint? Its classes have no names, " if known.folders is None else "")
                + "names with zeros in front (01, 02) sort as numbers"
            )
    return numbers, notes


def classes_to_train(data, train, val, num_classes):
    """Return the `Classes` of the training images `train` of a `DataConfig`, by the order of their folders' names.

    Args:
        train, val (ImageSplit): of `data`.

    Raises:
        UserError: not `num_classes` of them, one has no training image, or evaluation images are of another.
    """
    strangers = [name for name in val.classes if name not in train.classes and name not in val.empty]
    if train.empty:
        rest = len(train.classes) - len(train.empty)
        raise UserError(
            f"class folder {train.folder / train.empty[0]} has no image; fill it, or remove it, there and in "
            f"{val.folder}" + (f", and give --model.num_classes {rest}" if num_classes != rest else "")
        )
    if strangers:
        raise UserError(
            f"class '{strangers[0]}' is in {val.folder} but not in {train.folder}, so nothing could learn it; "
            "add training images of it, or remove it there"
        )
    if len(train.classes) != num_classes:
        raise UserError(
            f"{train.folder} has {len(train.classes)} classes but model.num_classes is {num_classes}; "
            f"give --model.num_classes {len(train.classes)} or another --data_dir"
        )
    return Classes.of(data, train)


def listed(names):
    """Return the first few of `names` for a message."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
