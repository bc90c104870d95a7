# SPDX-License-Identifier: Apache-2.0
"""ImageNet-1k as it is handed out, made a folder of images: links, by the tables of its development kit."""

import collections
import dataclasses
import os
import zlib
from pathlib import Path

import numpy as np

from src.data.class_names import write_class_names
from src.data.image_files import is_image
from src.errors import UserError

TRUTH = "ILSVRC2012_validation_ground_truth.txt"
# Validation images of each class.
VAL_IMAGES = 50
_UNPACK_CLASSES = 'for f in *.tar; do mkdir -p "${f%.tar}" && tar -xf "$f" -C "${f%.tar}" && rm "$f"; done'


@dataclasses.dataclass(frozen=True)
class DevelopmentKit:
    """What the development kit says.

    Attributes:
        names: of each class, by its WordNet id ("n01440764"), which names its folder.
        train_images: how many training images each has, by the same.
        val_classes: the WordNet id of each validation image, in the order of their numbers.
    """

    names: dict[str, str]
    train_images: dict[str, int]
    val_classes: list[str]


def read_development_kit(folder, classes=1000):
    """Return the `DevelopmentKit` in a folder (ILSVRC2012_devkit_t12).

    Its ground truth counts the classes from 1 in an order of its own, which is not that of their folders.

    Args:
        classes: how many there have to be; each has 50 validation images.

    Raises:
        UserError: a file is missing or not what it should be.
    """
    _refuse_missing(["data"], folder, "--devkit_dir", "folders", "tar -xzf ILSVRC2012_devkit_t12.tar.gz")
    synsets = _read_synsets(Path(folder, "data", "meta.mat"))
    path = Path(folder, "data", TRUTH)
    try:
        numbers = [int(word) for word in path.read_text().split()]
        val_classes = [synsets[number]["WNID"] for number in numbers]
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); unpack the development kit again") from error
    except (ValueError, KeyError) as error:
        raise UserError(f"{path}: {error} is no class of meta.mat; unpack the development kit again") from error
    counts = collections.Counter(val_classes)
    if len(synsets) != classes or len(counts) != classes or set(counts.values()) != {VAL_IMAGES}:
        raise UserError(
            f"{folder} has {len(synsets)} classes and {len(numbers)} validation images of {len(counts)} classes, but "
            f"takes {classes} and {VAL_IMAGES} of each; unpack it again, or, for a subset, give --classes"
        )
    # Two birds or two garments may share a name: the id tells them apart.
    uses = collections.Counter(synset["words"] for synset in synsets.values())
    names = {
        synset["WNID"]: synset["words"] + (f" ({synset['WNID']})" if uses[synset["words"]] > 1 else "")
        for synset in sorted(synsets.values(), key=lambda synset: synset["WNID"])
    }
    return DevelopmentKit(names, {s["WNID"]: int(s["num_train_images"]) for s in synsets.values()}, val_classes)


def link_imagenet(kit, train_dir, val_dir, output_dir):
    """Make `output_dir` a folder of images: train/CLASS a link to a folder, val/CLASS/IMAGE links to files.

    Right links stay, wrong ones are replaced, missing ones made; nothing else is touched. The names of the classes go
    into class_names.txt.

    Args:
        kit: `DevelopmentKit`.
        train_dir: folder with one folder of images for each class.
        val_dir: folder with ILSVRC2012_val_00000001.JPEG and so on.

    Yields:
        int: how many links were looked at since the last time, of `len(kit.names) + len(kit.val_classes)`.

    Raises:
        UserError: images or classes are missing, or `output_dir` holds something else or cannot be written.
    """
    files = collections.defaultdict(list)
    for number, name in enumerate(kit.val_classes, 1):
        files[name].append(f"ILSVRC2012_val_{number:08d}.JPEG")
    _refuse_missing(kit.names, train_dir, "--train_dir", "class folders", f"cd {train_dir} && {_UNPACK_CLASSES}")
    unpack = f"tar -xf ILSVRC2012_img_val.tar -C {val_dir}"
    _refuse_missing([file for its in files.values() for file in its], val_dir, "--val_dir", "images", unpack)
    train, val = Path(output_dir, "train"), Path(output_dir, "val")
    try:
        train.mkdir(parents=True, exist_ok=True)
        _refuse_others(train, kit.names)
        for name in kit.names:
            _link(train / name, Path(train_dir, name))
        yield len(kit.names)
        val.mkdir(exist_ok=True)
        _refuse_others(val, kit.names)
        for name in kit.names:
            (val / name).mkdir(exist_ok=True)
            _refuse_others(val / name, files[name])
            for file in files[name]:
                _link(val / name / file, Path(val_dir, file))
            yield len(files[name])
        write_class_names(output_dir, kit.names)
    except OSError as error:
        raise UserError(f"cannot write {error.filename} ({error.strerror}); give another --output_dir") from error


def count_train_images(kit, output_dir):
    """Return how many training images each class has, and should have, as `{class: (images, expected)}`."""
    counts = {}
    for name, expected in kit.train_images.items():
        files = os.listdir(Path(output_dir, "train", name))
        counts[name] = (sum(map(is_image, files)), expected)
    return counts


def _read_synsets(path):
    """Return the classes of meta.mat as `{ILSVRC2012_ID: record}`, without the groups of classes above them."""
    # Loading SciPy takes a while.
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        synsets = np.atleast_1d(loadmat(path, appendmat=False, squeeze_me=True)["synsets"])
        fields = ("ILSVRC2012_ID", "WNID", "words", "num_children", "num_train_images")
        records = [{field: synset[field] for field in fields} for synset in synsets]
        return {int(record["ILSVRC2012_ID"]): record for record in records if record["num_children"] == 0}
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error.strerror}); --devkit_dir takes the unpacked development kit"
        ) from error
    except (
        MatReadError,
        zlib.error,
        EOFError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        NotImplementedError,
    ) as error:
        raise UserError(f"{path} is no table of ImageNet's classes ({error}); unpack the kit again") from error


def _refuse_missing(names, folder, flag, what, unpack):
    """Refuse a folder that lacks some of `names`; where it is or holds an archive, with the command to unpack that."""
    folder = Path(folder)
    try:
        there = set() if folder.is_file() else set(os.listdir(folder))
    except OSError as error:
        raise UserError(f"{flag}: cannot list {folder} ({error.strerror}); give the folder with the {what}") from error
    missing = sorted(set(names) - there)
    if not missing:
        return
    shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
    says = f"{flag}: {folder} lacks {len(missing)} of {len(names)} {what}: {shown}"
    if folder.is_file() or any(".tar" in name for name in there):
        raise UserError(f"{says}; unpack the archive first: {unpack}")
    raise UserError(f"{says}; complete it")


def _refuse_others(folder, names):
    others = sorted(set(os.listdir(folder)).difference(names))
    if others:
        raise UserError(f"{folder} holds something else, {others[0]}; give another --output_dir")


def _link(link, target):
    """Make `link` a relative link to `target`: the data may be mounted elsewhere as long as both are."""
    text = os.path.relpath(os.path.realpath(target), os.path.realpath(link.parent))
    if link.is_symlink():
        if os.readlink(link) == text:
            return
        link.unlink()
    elif link.exists():
        raise UserError(f"{link} is no link; give another --output_dir")
    link.symlink_to(text)
