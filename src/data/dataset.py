# SPDX-License-Identifier: Apache-2.0
"""From images of a split, in whatever form, to batches."""

import os
import re
import sys

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
from mindspore.dataset import transforms

from src.data.image_folder import list_split
from src.data.mixing import Mixing
from src.data.transforms import (
    Pixels,
    erasing_transform,
    eval_transform,
    preprocessing,
    train_transform,
)
from src.errors import UserError
from src.image_size import sides

# MindSpore hands on what a step in Python raised as the text of a traceback.
_told = set()
_PYTHON = "Python Call Stack"
_OURS = re.compile(r"^(?:[\w.]+\.)?UserError: (.*)$", re.M)


def create_dataset(
    data, image_size, in_channels, split, rank=0, world_size=1, seed=0, epoch=0, as_pixels=False, numbers=None
):
    """Make one epoch of batches of worker `rank` of `world_size`.

    "train": augmented, in an order that follows `seed` and `epoch` alone; every worker gets equally many full batches,
    what is left over stays out. The random crop of an image follows `seed` and `epoch`, all else that is random
    `rank` and the number of threads too, if iteration begins before the next training epoch is made or
    `mindspore.set_seed` is called. So make a new data set each epoch: that costs listing the folder, and an epoch can
    be repeated or resumed exactly.

    "val": every image once over all workers; the last batch may be short, and workers beyond the images have none.

    Args:
        data: `DataConfig`.
        image_size: (H, W) of the images, or S for S x S.
        in_channels: 3 (colour) or 1 (grey), C.
        split: "train" or "val".
        as_pixels: of "val": "image" is not normalised but uint8 (B, H, W, C).
        numbers: the label of each class of the split, see `Classes.numbers_of`; None: its position.

    Returns:
        mindspore.dataset.Dataset with columns "image" float32 (B, C, H, W) normalised, and "label" int32 (B,); where
        training mixes images (`Mixing`), "label" float32 (B, K), the share of each class.

    Raises:
        UserError: missing or empty folders, or too few training images for one batch for each worker.
    """
    listed = list_split(data, split)
    order = share_of_worker(listed, data.batch_size, split, rank, world_size, seed, epoch)
    if split == "train":
        steps = train_transform(data, sides(image_size), in_channels, (seed, epoch), listed.path)
        seed = int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0])
        ds.config.set_seed(seed)
    else:
        steps = eval_transform(preprocessing(data, image_size, in_channels), listed.path, as_pixels)
    threads = decoding_threads(data)
    # MindSpore keeps 16 batches ready, 1 GB at 64 images of 224x224; 4 are as fast and take half.
    ds.config.set_prefetch_size(4)
    # MindSpore takes no empty order.
    is_empty, order = not len(order), order if len(order) else np.zeros(1, int)
    images = ds.zip((listed.read(order, threads), ds.NumpySlicesDataset({"position": order}, shuffle=False)))
    images = images.skip(1) if is_empty else images
    images = images.map(steps, ["image", "position"], ["image"], num_parallel_workers=threads)
    if numbers is not None and not np.array_equal(numbers, np.arange(len(numbers))):
        images = images.map(lambda label: np.int32(numbers[label]), "label", num_parallel_workers=1)
    # Two, because copying is the one step between many decoding threads and the network.
    copiers = min(threads, 2)
    if split == "val":
        return images.batch(data.batch_size, num_parallel_workers=copiers)
    # Each of these on one thread, so that it draws in the order of the images.
    if erasing := erasing_transform(data):
        images = images.map(erasing, "image", num_parallel_workers=1)
    is_mixed = data.mixup or data.cutmix
    if is_mixed:
        as_probabilities = [transforms.OneHot(len(listed.classes)), transforms.TypeCast(ms.float32)]
        images = images.map(as_probabilities, "label", num_parallel_workers=1)
    images = images.batch(data.batch_size, drop_remainder=True, num_parallel_workers=copiers)
    if is_mixed:
        images = images.map(Mixing(data.mixup, data.cutmix, seed), ["image", "label"], num_parallel_workers=1)
    return images


def share_of_worker(listed, batch_size, split, rank, world_size, seed, epoch):
    """Return the positions of a worker's images in their order, see `create_dataset`.

    Args:
        listed: has `images`, their number, and `folder`.

    Raises:
        UserError: too few training images for one batch for each worker.
    """
    if split != "train":
        return np.arange(listed.images)[rank::world_size]
    order = np.random.default_rng([seed, epoch]).permutation(listed.images)
    order = order[: listed.images // world_size * world_size]
    if len(order) < world_size * batch_size:
        raise UserError(
            f"{listed.folder} has {listed.images} images but {world_size} worker(s) take at least "
            f"{batch_size} each; lower data.batch_size or the number of workers"
        )
    return order[rank::world_size]


def decoding_threads(data):
    """Return how many threads read and prepare the images of a `DataConfig`."""
    return min(data.num_workers or os.cpu_count(), os.cpu_count())


def iterate(dataset):
    """Yield the batches of one epoch as tuples of Tensors (image, label).

    Raises:
        UserError: an image cannot be read; names its file, or its record.
    """
    try:
        yield from dataset.create_tuple_iterator(num_epochs=1)
    except RuntimeError as error:
        if said := _OURS.findall(str(error)):
            raise UserError(said[-1]) from error
        for source in _parts(dataset):
            if isinstance(source, ds.MindDataset) and _PYTHON not in str(error):
                raise UserError(
                    f"a shard of {os.path.dirname(source.dataset_files[0])} cannot be read; "
                    "scripts/create_mindrecord.py --check names it"
                ) from error
        raise
    for part in _parts(dataset):
        for step in getattr(part, "operations", ()):
            if isinstance(step, Pixels):
                _tell_turned(step)


def describe_turned(count):
    """Return the line on so many images whose EXIF orientation was not applied."""
    return f"{count} images lie otherwise than their EXIF tag says; data.orientation apply turns them"


def _tell_turned(step):
    """Say of how many images a `Pixels` ignored the orientation, once for each folder, however many epochs."""
    if step.turned and (folder := step.name(0).parent.parent) not in _told:
        _told.add(folder)
        print(f"{folder}: {describe_turned(step.turned)}", file=sys.stderr, flush=True)


def _parts(dataset):
    """Yield the steps of a data set and its sources."""
    yield dataset
    for child in dataset.children:
        yield from _parts(child)
