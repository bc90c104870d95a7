# SPDX-License-Identifier: Apache-2.0
"""How the classes of pixels are judged: intersection over union, and accuracies."""

import csv

import mindspore as ms
import numpy as np

from src.errors import UserError
from src.tasks.pixel_answers import best_class, mean_probabilities, planes
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


def _all_of_one_class(confusion):
    answer = np.zeros_like(confusion)
    answer[:, confusion.sum(1).argmax()] = confusion.sum(1)
    return answer


class PixelJudge(Judge):
    """Adds up the confusion of the classes of all pixels that have one.

    Logits are resized to the size of the labels, bilinearly, and each pixel is of the class of its largest; where an
    image comes in several scales, or is flipped too, of that of the largest mean probability.

    Args:
        answers (Answers): of the network.
        names (list): of the classes.
        ignore_label (int): of pixels without a class.
        flip (bool): whether each image is judged flipped too.

    `result` has miou and macc, the means of IoU and accuracy over the classes that there are (of IoU: or that were
    given), aacc, the accuracy of all pixels, and trivial, the miou of an answer that takes every pixel for the most
    frequent class, in percent, samples, images, and sizes, how many the graph of a worker was
    compiled for at most.
    """

    def __init__(self, answers, names, ignore_label, flip=False):
        self.step, self.answers, self.names, self.ignore_label = answers.step, answers, names, ignore_label
        self.flip = flip

    def compile(self):
        self.answers.compile()

    @property
    def compiling_s(self):
        return self.answers.compiling_s

    def begin(self):
        self.confusion, self.samples = np.zeros((len(self.names),) * 2, np.int64), 0

    def add(self, *batch):
        *scales, label = batch
        (label,) = label.asnumpy()
        answers = [self.answers(image) for image in scales]
        if self.flip:
            flipped = (ms.Tensor(np.ascontiguousarray(image.asnumpy()[..., ::-1])) for image in scales)
            answers += [self.answers(image)[..., ::-1] for image in flipped]
        numbers = planes(*answers, label.shape) if len(answers) == 1 else mean_probabilities(answers, label.shape)
        found = best_class(numbers)
        self.confusion += confusion_of(label, found, len(self.names), self.ignore_label)
        self.samples += 1
        return found

    def result(self, world):
        counts = gather_from_workers(np.array([self.samples, len(self.answers.sizes)], np.float64), world)
        samples = int(counts[:, 0].sum())
        if not samples:
            raise UserError("the evaluation saw no image; give a --data_dir with some")
        confusion = self.whole(world)
        iou, accuracy = scores(confusion)
        return {
            "miou": float(np.nanmean(iou)),
            "macc": float(np.nanmean(accuracy)),
            "aacc": float(100 * confusion.diagonal().sum() / max(confusion.sum(), 1)),
            "trivial": float(np.nanmean(scores(_all_of_one_class(confusion))[0])),
            "samples": samples,
            "sizes": int(counts[:, 1].max()),
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
