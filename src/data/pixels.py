# SPDX-License-Identifier: Apache-2.0
"""From folders of images and masks to batches."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mindspore.dataset as ds
import numpy as np

from src.cli import follow
from src.data.class_colours import read_classes
from src.data.dataset import decoding_threads, share_of_worker
from src.data.image_files import UnusableImage, decode, shown
from src.data.pixel_folder import Labels, list_pairs
from src.data.pixel_transforms import TrainPixels, aligned_size, normalised, resized_image, scaled_size
from src.data.scenes import write_scenes
from src.errors import UserError


def list_pixels(data, settings, split):
    """Return the `PixelSplit` of a `DataConfig` and a `SegmentationConfig`.

    Args:
        split (str): "train" or "val".

    Raises:
        UserError: as `list_pairs`, or there is no data folder.
    """
    if not data.data_dir:
        raise UserError("no data folder given; add --data_dir DIR, or data.data_dir to the config")
    if data.name == "scenes":
        write_scenes(data.data_dir)
    folders = {
        "train": (settings.train_images, settings.train_masks),
        "val": (settings.val_images, settings.val_masks),
    }[split]
    return list_pairs(*(Path(data.data_dir, folder) for folder in folders))


def class_names(data, settings, classes):
    """Return the names of the classes, by their numbers.

    Raises:
        UserError: their file cannot be read, or has not one line for each.
    """
    if not settings.class_names:
        return [str(number) for number in range(classes)]
    return read_classes(Path(data.data_dir, settings.class_names), classes)[0]


class Pair:
    """The pixels and labels of an image, made of the bytes of two files.

    Args:
        listed (PixelSplit): for messages.
        labels (Labels): what the masks mean.
        orientation (str): of `src.data.image_files.decode`.
    """

    def __init__(self, listed, labels, orientation):
        self.listed, self.labels, self.orientation = listed, labels, orientation

    def of(self, image, mask, position):
        try:
            pixels = np.asarray(decode(image.tobytes(), self.orientation)[0])
        except UnusableImage as error:
            raise UserError(f"image {shown(self.listed.path(position))} {error}") from error
        return pixels, self.labels.of(mask.tobytes(), self.listed.mask_path(position), pixels.shape[:2])


class TrainPair(Pair):
    """The training step: `Pair`, then `TrainPixels`, then normalisation; the padding is zero after it."""

    def __init__(self, listed, labels, data, train):
        super().__init__(listed, labels, data.orientation)
        self.train, self.mean, self.std = train, data.mean, data.std

    def __call__(self, image, mask, position):
        pixels, labels = self.of(image, mask, int(position))
        pixels, labels, is_image = self.train(pixels, labels, int(position))
        return normalised(pixels, self.mean, self.std) * is_image, labels.astype(np.int32)


class EvaluationPair(Pair):
    """The evaluation step: the whole image in each of `scales`, its sides multiples of `divisor`; then its labels."""

    def __init__(self, listed, labels, data, scales, divisor):
        super().__init__(listed, labels, data.orientation)
        self.scales, self.divisor, self.mean, self.std = scales, divisor, data.mean, data.std

    def __call__(self, image, mask, position):
        pixels, labels = self.of(image, mask, int(position))
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
    labels = Labels(model.num_classes, settings.ignore_label, settings.reduce_zero_label)
    order = share_of_worker(listed, data.batch_size, split, world.rank, world.size, config.train.seed, epoch)
    if split == "train":
        train = TrainPixels(
            *(model.size, settings.scale, settings.scale_range, settings.most_of_one_class, data.hflip),
            *(settings.distortion, settings.ignore_label, (config.train.seed, epoch)),
        )
        step, batch_size, images = TrainPair(listed, labels, data, train), data.batch_size, ["image"]
    else:
        scales = [[side * factor for side in settings.scale] for factor in settings.eval_scales]
        step, batch_size = EvaluationPair(listed, labels, data, scales, settings.divisor), 1
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

    Args:
        listed (PixelSplit): the images of all workers.
    """
    settings = config.segmentation
    labels = Labels(config.model.num_classes, settings.ignore_label, settings.reduce_zero_label)
    pair, problems = Pair(listed, labels, config.data.orientation), []

    def examine(position):
        try:
            pair.of(*listed.content(position))
        except UserError as error:
            problems.append(str(error))
        return 1

    share = range(world.rank, listed.images, world.size)
    with ThreadPoolExecutor(decoding_threads(config.data)) as pool:
        follow(pool.map(examine, share), f"looking at the images of {listed.folder}", 0, len(share))
    for problem in sorted(problems):
        print(problem, file=sys.stderr)
    return len(problems)
