# SPDX-License-Identifier: Apache-2.0
"""How the classes of pixels are judged: intersection over union, and accuracies."""

import csv

import cv2
import mindspore as ms
import numpy as np

from src.errors import UserError
from src.training.atomic import replacing
from src.training.parallel import gather_from_workers
from src.training.task import Judge


def confusion_of(label, best, classes, ignore_label):
    """Return the pixels of each class by the class they were taken for, int64 (K, K).

    Args:
        label, best (numpy.ndarray): int, of one shape: classes, and those that were found.
        classes (int): K.
        ignore_label (int): of pixels that do not count.
    """
    has_class = label != ignore_label
    places = label[has_class].astype(np.int64) * classes + best[has_class]
    return np.bincount(places, minlength=classes**2).reshape(classes, classes)


def scores(confusion):
    """Return IoU and accuracy of each class, (K,) each, in percent, NaN where there is nothing to divide by.

    Args:
        confusion (numpy.ndarray): int (K, K), pixels by class and by the class they were taken for.
    """
    right, there, given = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    with np.errstate(invalid="ignore"):
        return 100 * right / (there + given - right), 100 * right / there


class PixelJudge(Judge):
    """Adds up the confusion of the classes of all pixels that have one.

    Logits are resized to the size of the labels, bilinearly, and each pixel is of the class of its largest.

    Args:
        step (nn.Cell): images (1, 3, H, W) to float32 logits (1, K, H, W).
        names (list): of the classes.
        ignore_label (int): of pixels without a class.
        size (tuple): (H, W) that the graph is compiled for beforehand; for others it is when they come.

    `result` has miou and macc, the means of IoU and accuracy over the classes that there are (of IoU: or that were
    given), aacc, the accuracy of all pixels, in percent, and samples, images.
    """

    def __init__(self, step, names, ignore_label, size):
        self.step, self.names, self.ignore_label, self.size = step, names, ignore_label, size

    def compile(self):
        self.step.compile(ms.Tensor(np.zeros((1, 3, *self.size), np.float32)))

    def begin(self):
        self.confusion, self.samples = np.zeros((len(self.names),) * 2, np.int64), 0

    def add(self, image, label):
        (logits,), (label,) = self.step(image).asnumpy(), label.asnumpy()
        logits = cv2.resize(logits.transpose(1, 2, 0), label.shape[::-1], interpolation=cv2.INTER_LINEAR)
        found = logits.argmax(2)
        self.confusion += confusion_of(label, found, len(self.names), self.ignore_label)
        self.samples += 1
        return found

    def result(self, world):
        samples = int(gather_from_workers(np.float64(self.samples), world).sum())
        if not samples:
            raise UserError("the evaluation saw no image; give a --data_dir with some")
        confusion = self.whole(world)
        iou, accuracy = scores(confusion)
        return {
            "miou": float(np.nanmean(iou)),
            "macc": float(np.nanmean(accuracy)),
            "aacc": float(100 * confusion.diagonal().sum() / max(confusion.sum(), 1)),
            "samples": samples,
        }

    def whole(self, world):
        """Return the confusion over all workers, exactly; each of them has to call it."""
        return gather_from_workers(self.confusion.astype(np.float64), world).sum(axis=0).astype(np.int64)

    def write_per_class(self, path, world):
        confusion = self.whole(world)
        if world.rank != 0:
            return
        with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
            write = csv.writer(file).writerow
            write(("class", "name", "pixels", "iou", "accuracy"))
            for number, (name, pixels, *parts) in enumerate(zip(self.names, confusion.sum(1), *scores(confusion))):
                write([number, name, pixels, *("" if np.isnan(part) else f"{part:.2f}" for part in parts)])
