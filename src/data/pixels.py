# SPDX-License-Identifier: Apache-2.0
"""From folders of images and masks to batches."""

import sys
from pathlib import Path

import mindspore.dataset as ds
import numpy as np

from src.cli import follow
from src.data.class_colours import read_classes
from src.data.dataset import decoding_threads, share_of_worker
from src.data.image_folder import split_name
from src.data.labels import Labels
from src.data.packed_splits import PackedPairs, open_packed_pairs
from src.data.packing import check
from src.data.pixel_folder import list_pairs
from src.data.pixel_transforms import TrainPixels, aligned_size, normalised, padded, resized_image, scaled_size
from src.data.records import is_packed
from src.data.scenes import write_scenes
from src.errors import UserError


def list_pixels(config, split):
    """Return a `PixelSplit` of a `Config`, whichever form it has.

    Args:
        split (str): "train" or "val".

    Returns:
        PairSplit; PackedPairs where the data folder has a folder of that name with a manifest.

    Raises:
        UserError: as `list_pixel_files` and `open_packed_pairs`.
    """
    data = config.data
    if data.data_dir and is_packed(folder := Path(data.data_dir, split_name(data, split))):
        return open_packed_pairs(folder, _labels(config), data.orientation)
    return list_pixel_files(config, split)


def list_pixel_files(config, split):
    """Return the `PairSplit` of a `Config`.

    Args:
        split (str): "train" or "val".

    Raises:
        UserError: as `list_pairs`, or there is no data folder.
    """
    data, settings = config.data, config.segmentation
    if not data.data_dir:
        raise UserError("no data folder given; add --data_dir DIR, or data.data_dir to the config")
    if data.name == "scenes":
        write_scenes(data.data_dir)
    folders = {
        "train": (settings.train_images, settings.train_masks),
        "val": (settings.val_images, settings.val_masks),
    }[split]
    paths = (Path(data.data_dir, folder) for folder in folders)
    return list_pairs(*paths, _labels(config), data.orientation)


def _labels(config):
    settings = config.segmentation
    return Labels(config.model.num_classes, settings.ignore_label, settings.reduce_zero_label)


def class_names(data, settings, classes):
    """Return the names of the classes, by their numbers.

    Raises:
        UserError: their file cannot be read, or has not one line for each.
    """
    if not settings.class_names:
        return [str(number) for number in range(classes)]
    return read_classes(Path(data.data_dir, settings.class_names), classes)[0]


class TrainPair:
    """The training step: decoding, then `TrainPixels`, then normalisation and padding."""

    def __init__(self, listed, data, train):
        self.listed, self.train, self.mean, self.std = listed, train, data.mean, data.std

    def __call__(self, image, mask, position):
        pixels, labels = self.listed.decoded(image, mask, int(position))
        pixels, labels = self.train(pixels, labels, int(position))
        size, ignored = self.train.size, self.train.ignore_label
        return normalised(pixels, self.mean, self.std, size), padded(labels, size, ignored)


class EvaluationPair:
    """The evaluation step: the whole image in each of `scales`, its sides multiples of `divisor`; then its labels."""

    def __init__(self, listed, data, scales, divisor):
        self.listed, self.scales, self.divisor = listed, scales, divisor
        self.mean, self.std = data.mean, data.std

    def __call__(self, image, mask, position):
        pixels, labels = self.listed.decoded(image, mask, int(position))
        sizes = [aligned_size(scaled_size(labels.shape, scale), self.divisor) for scale in self.scales]
        images = [normalised(resized_image(pixels, size), self.mean, self.std) for size in sizes]
        return *images, labels.astype(np.int32)


def create_pixel_dataset(config, listed, split, world, epoch=0):
    """Make one epoch of batches of a worker, as `src.data.dataset.create_dataset` does; of "val" of an image each.

    All that is random of an image follows `train.seed`, the epoch and its position alone, however many threads and
    workers there are.

    Returns:
        mindspore.dataset.Dataset with columns "image", float32 (B, 3, H, W), and "label", int32 (B, H, W). In
        evaluation "image0", ... for each of `eval_scales`, and "label" of the size of the file.

    Raises:
        UserError: too few training images for one batch for each worker.
    """
    data, settings, model = config.data, config.segmentation, config.model
    order = share_of_worker(listed, data.batch_size, split, world.rank, world.size, config.train.seed, epoch)
    if split == "train":
        train = TrainPixels(
            *(model.size, settings.scale, settings.scale_range, settings.most_of_one_class, data.hflip),
            *(settings.distortion, settings.ignore_label, (config.train.seed, epoch)),
        )
        step, batch_size, images = TrainPair(listed, data, train), data.batch_size, ["image"]
    else:
        scales = [[side * factor for side in settings.scale] for factor in settings.eval_scales]
        step, batch_size = EvaluationPair(listed, data, scales, settings.divisor), 1
        images = [f"image{number}" for number in range(len(scales))]
    threads = decoding_threads(data)
    ds.config.set_prefetch_size(4)
    # MindSpore takes no empty order.
    rows = listed.read(order if len(order) else [0], threads)
    rows = rows if len(order) else rows.skip(1)
    rows = rows.map(step, ["image", "mask", "position"], [*images, "label"], num_parallel_workers=threads)
    return rows.batch(batch_size, drop_remainder=split == "train", num_parallel_workers=min(threads, 2))


def check_pixels(config, listed, world):
    """Decode every image of this worker's share and its mask; print what is wrong with each, and return how many are.

    Of packed ones every record is compared with what was packed before.

    Args:
        listed (PixelSplit): the images of all workers.

    Raises:
        UserError: shards are damaged.
    """
    if isinstance(listed, PackedPairs):
        follow(check(listed.records), f"checking {listed.folder}", 0, listed.images)
    share, problems = range(world.rank, listed.images, world.size), []

    def work():
        rows = listed.problems(share, decoding_threads(config.data))
        for (problem,) in rows.create_tuple_iterator(num_epochs=1, output_numpy=True):
            problems.append(str(problem))
            yield 1

    if share:  # a worker beyond the images has none
        follow(work(), f"looking at the images of {listed.folder}", 0, len(share))
    problems = sorted(filter(None, problems))
    for problem in problems:
        print(problem, file=sys.stderr)
    return len(problems)
