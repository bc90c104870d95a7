# SPDX-License-Identifier: Apache-2.0
"""A small folder of images, and the batches made of it."""

import numpy as np
from PIL import Image

from src.data import Classes, classes_to_train, create_dataset, iterate
from src.data.image_folder import list_split

COLOURS = {"ant": (200, 30, 30), "bee": (30, 200, 30), "cat": (30, 30, 200)}
EXTENSIONS = [".JPEG", ".jpg", ".PNG", ".bmp", ".Jpg"]


def photo(seed, size=(60, 48)):
    """Return a smooth random picture: compresses like a photo, has no symmetry."""
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.BICUBIC)


def write_folder(path):
    """Write three classes of five images each, in train and val, with every accepted file type."""
    for split in ("train", "val"):
        for label, (name, colour) in enumerate(COLOURS.items()):
            (path / split / name).mkdir(parents=True)
            for index, extension in enumerate(EXTENSIONS):
                image = photo(100 * label + index) if split == "val" else Image.new("RGB", (40, 30), colour)
                image.save(path / split / name / f"{index}{extension}", quality=95)
    return path


def batches(*args, **kwargs):
    return [(image.asnumpy(), label.asnumpy()) for image, label in iterate(create_dataset(*args, **kwargs))]


def epoch(*args, **kwargs):
    images, labels = zip(*batches(*args, **kwargs))
    return np.concatenate(images), np.concatenate(labels)


def classes_of(data, split):
    return Classes.of(data, list_split(data, split))


def trained_classes(data, count):
    """The classes that a training on `data` of a network with `count` classes has."""
    return classes_to_train(data, list_split(data, "train"), list_split(data, "val"), count)
