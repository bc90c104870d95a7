# SPDX-License-Identifier: Apache-2.0
"""From COCO's JSON and folders of images to batches."""

import sys
from pathlib import Path

import mindspore.dataset as ds
import numpy as np

from src.cli import follow
from src.data.box_order import evaluation_batches, training_batches
from src.data.box_split import UNUSED, split_of
from src.data.box_transforms import DRAWS, Policy, placed, shapes
from src.data.class_colours import read_classes
from src.data.classes import listed
from src.data.coco_file import read_coco
from src.data.dataset import decoding_threads
from src.data.image_files import shown
from src.data.letterbox import TwoShapes
from src.data.pixel_transforms import normalised
from src.data.scenes import write_scenes
from src.errors import UserError


def read_annotations(config, split, with_masks):
    """Return the `CocoFile` of "train" or "val", whatever is wrong in it.

    Raises:
        UserError: there is no data folder, or as `read_coco`.
    """
    data, settings = config.data, config.detection
    if not data.data_dir:
        raise UserError("no data folder given; add --data_dir DIR, or data.data_dir to the config")
    if data.name == "scenes":
        write_scenes(data.data_dir)
    return read_coco(Path(data.data_dir, getattr(settings, f"{split}_annotations")), with_masks)


def open_annotations(config, split, with_masks):
    """Return the `CocoFile` of "train" or "val"; `UserError` where something in it is wrong, or as above."""
    file = read_annotations(config, split, with_masks)
    file.refuse_problems()
    return file


def class_names(config, file):
    """Return the names of the classes: those of `detection.class_names`, else of all categories of a `CocoFile`.

    Raises:
        UserError: their file cannot be read, or they are not `model.num_classes`.
    """
    settings, classes = config.detection, config.model.num_classes
    if settings.class_names:
        names = read_classes(Path(config.data.data_dir, settings.class_names), classes)[0]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise UserError(f"{settings.class_names} has the class '{twice[0]}' twice; remove one")
        return names
    if len(file.category_names) != classes:
        raise UserError(
            f"{shown(file.path)} has {len(file.category_names)} categories ({listed(file.category_names)}) but "
            f"model.num_classes is {classes}; give --model.num_classes {len(file.category_names)}, or those wanted by "
            "detection.class_names"
        )
    return file.category_names


def list_boxes(config, split, file, names, with_masks):
    """Return the `BoxSplit` of a `CocoFile` and the classes `names`.

    Raises:
        UserError: the file has no image, or none is in the folder, or an image to train on has more boxes than
            `detection.max_boxes`, or one to evaluate on a mask that cannot be used; or as `split_of`.
    """
    data, settings = config.data, config.detection
    folder = Path(data.data_dir, getattr(settings, f"{split}_images"))
    is_training = split == "train"
    found = split_of(folder, file, names, with_masks, data.orientation, settings.keep_empty or not is_training)
    if not found.images:
        raise UserError(f"{shown(file.path)} has no image{' with a box' * is_training}; give another file")
    if not found.path(0).is_file():
        raise UserError(
            f"no image {shown(found.path(0))}, which {shown(file.path)} names (id {found.image_id(0)}); "
            f"detection.{split}_images is the folder of images, in --data_dir"
        )
    if is_training:
        _check_to_train(found, settings.max_boxes)
    else:
        found.check_masks()
    return found


def _check_to_train(found, room):
    if not found.counted:
        raise UserError(
            f"{shown(found.file.path)} has no box to learn from: all {len(found.file.rows)} annotations are crowds, or "
            "left out" + (", or without a mask" if found.with_masks else "")
        )
    images = found.file.rows["image"][found.labels != UNUSED]
    counts = np.bincount(images, minlength=len(found.file.image_ids))
    if counts.max() > room:
        position = int(np.flatnonzero(found.kept == counts.argmax())[0])
        raise UserError(
            f"image {shown(found.path(position))} (id {found.image_id(position)}) has {counts.max()} boxes but "
            f"detection.max_boxes leaves room for {room}; give --detection.max_boxes {counts.max()}"
        )


class TrainBoxes:
    """The training step: an image, its size, boxes, labels and masks, all changed together, and padded.

    Args:
        listed (BoxSplit): the images.
        policy (Policy): how they are changed.
        draws: (n, DRAWS), chance of each, see `Policy.change`.
        config (Config): the settings.

    Inputs: the position of an image. Outputs: see `create_box_dataset`.
    """

    def __init__(self, listed, policy, draws, config):
        self.listed, self.policy, self.draws = listed, policy, draws
        self.room = config.detection.max_boxes
        self.mean, self.std = config.data.mean, config.data.std
        self.shapes = shapes(config.detection.scale, config.detection.divisor)

    def __call__(self, position):
        position = int(position)
        change = self.policy.change(self.listed.size(position), self.draws[position])
        found = self.listed.objects(position)
        shape = self.shapes[change.is_tall]
        image = normalised(change.image(self.listed.pixels(position)), self.mean, self.std, shape)
        there, is_left = change.boxes(found.boxes)
        boxes, labels = np.zeros((self.room, 4), np.float32), np.full(self.room, UNUSED, np.int32)
        count = int(is_left.sum())
        boxes[:count], labels[:count] = there[is_left], found.labels[is_left]
        columns = image, np.array(change.size, np.float32), boxes, labels
        if not self.listed.with_masks:
            return columns
        masks = np.zeros((self.room, *shape), np.uint8)
        for room, row, label in zip(masks, found.rows[is_left], labels):
            # Nobody learns from the mask of a region to be ignored.
            if label >= 0:
                room[:] = placed(change.mask(self.listed.mask(row)), shape)
        return *columns, masks


class EvaluationImage:
    """The evaluation step: an image as `pictures` has it, its size, and what stands for it. Inputs: position, that."""

    def __init__(self, listed, pictures):
        self.listed, self.pictures = listed, pictures

    def __call__(self, position, index):
        return *self.pictures(self.listed.pixels(int(position))), index


def create_box_dataset(config, listed, split, world, epoch=0, pictures=None):
    """Make one epoch of batches of a worker. All images of a batch, over all workers, are wide, or all are tall.

    All that is random of an image follows `train.seed`, the epoch and its position alone, however many threads and
    workers there are. "train" has whole batches, as many in each epoch.

    Args:
        listed (BoxSplit): the images of all workers.
        split (str): "train" or "val".
        pictures: of "val", what makes them of images, see `src.data.letterbox`; None: `TwoShapes`.

    Returns:
        mindspore.dataset.Dataset. Pictures are (H, W) of `shapes`, M is `detection.max_boxes`.

        "train": "image", float32 (B, 3, H, W), zero around the picture; "size", float32 (B, 2), its height and width;
        "boxes", float32 (B, M, 4), x1, y1, x2, y2, pixels; "labels", int32 (B, M), classes, `IGNORED` or `UNUSED`;
        with masks "masks", uint8 (B, M, H, W), 0 or 1.

        "val": "image", "size", and "index", int32 (B,), the position of the image; -1 for one that fills up a batch.
        Each image once over all workers.

    Raises:
        UserError: too few training images of one shape for one batch for each worker.
    """
    data, settings, seed = config.data, config.detection, (config.train.seed, epoch)
    sizes, size = map(tuple, listed.sizes.tolist()), data.batch_size * world.size
    ds.config.set_prefetch_size(2)
    if split == "train":
        policy = Policy.of(settings, data.hflip)
        # A row for each image, whoever makes it.
        draws = np.random.default_rng([*seed, 1]).random((listed.images, DRAWS))
        is_tall = np.array([policy.change(*each).is_tall for each in zip(sizes, draws)])
        batches = training_batches(is_tall, size, np.random.default_rng(seed), settings.crop > 0)
        if not len(batches):
            raise UserError(
                f"{listed.folder} has {listed.images} images, {is_tall.sum()} of them tall, but {world.size} worker(s) "
                f"take at least {data.batch_size} each that are all wide, or all tall"
                + (", and as many again where parts are cut out" if settings.crop else "")
                + "; lower data.batch_size or the number of workers"
            )
        rows = {"position": batches[:, world.rank :: world.size].ravel().astype(np.int32)}
        step = TrainBoxes(listed, policy, draws, config)
        columns = ["image", "size", "boxes", "labels", *["masks"] * listed.with_masks]
    else:
        pictures = pictures or TwoShapes(settings.scale, settings.divisor, data.mean, data.std)
        is_tall = np.array([pictures.is_tall(each) for each in sizes])
        batches, index = evaluation_batches(is_tall, size)
        mine = slice(world.rank, None, world.size)
        rows = {"position": batches[:, mine].ravel().astype(np.int32), "index": index[:, mine].ravel().astype(np.int32)}
        step, columns = EvaluationImage(listed, pictures), ["image", "size", "index"]
    threads = decoding_threads(data)
    made = ds.NumpySlicesDataset(rows, shuffle=False).map(step, [*rows], columns, num_parallel_workers=threads)
    return made.batch(data.batch_size, drop_remainder=True, num_parallel_workers=min(threads, 2))


def check_boxes(config, file, split, with_masks, world):
    """Look at every image of this worker's share, and its masks; print what is wrong, and return how much is.

    What is wrong in the file itself, worker 0 tells.
    """
    problems = list(file.problems) if world.rank == 0 else []
    folder = Path(config.data.data_dir, getattr(config.detection, f"{split}_images"))
    found = split_of(folder, file, [], with_masks, config.data.orientation)
    share = np.arange(world.rank, found.images, world.size, dtype=np.int32)

    def said(position):
        return np.array("\n".join(found.problems(int(position))))

    def work():
        rows = ds.NumpySlicesDataset({"position": share}, shuffle=False)
        rows = rows.map(said, "position", ["problem"], num_parallel_workers=decoding_threads(config.data))
        for (problem,) in rows.create_tuple_iterator(num_epochs=1, output_numpy=True):
            problems.extend(str(problem).splitlines())
            yield 1

    if len(share):
        follow(work(), f"looking at the images of {found.folder}", 0, len(share))
    for problem in problems:
        print(problem, file=sys.stderr)
    return len(problems)
