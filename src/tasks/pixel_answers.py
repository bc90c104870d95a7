# SPDX-License-Identifier: Apache-2.0
"""What a network answers to an image of any size, whole or by windows, and the class of each pixel of that.

Numbers of all classes at every pixel of a large image take gigabytes, so they are made class by class.
"""

import time

import cv2
import mindspore as ms
import numpy as np

from src.data.windows import Windows


class Answers:
    """What a network answers to images.

    Args:
        step (nn.Cell): images (1, 3, H, W) to float32 logits (1, K, H, W), or what stands in for one.
        window (tuple): (h, w) of all that the step is given; None: of each image what it has.

    Inputs: image, a Tensor (1, 3, H, W). Outputs: numpy.ndarray (K, H, W).

    Attributes:
        sizes (set): (H, W) that the graph was compiled for.
        compiling_s (float): seconds that took.
    """

    def __init__(self, step, window=None):
        self.step, self.window, self.sizes, self.compiling_s = step, window, set(), 0.0

    def compile(self):
        """Make the graph, where it is known of which size."""
        if self.window:
            self.compile_for(ms.Tensor(np.zeros((1, 3, *self.window), np.float32)))

    def compile_for(self, image):
        size = image.shape[2:]
        if size not in self.sizes:
            started = time.perf_counter()
            self.step.compile(image)
            self.compiling_s += time.perf_counter() - started
            self.sizes.add(size)

    def __call__(self, image):
        raise NotImplementedError


class WholeImages(Answers):
    """The answers to whole images: each of their sizes is compiled for."""

    def __call__(self, image):
        self.compile_for(image)
        return self.step(image).asnumpy()[0]


class SlidingWindows(Answers):
    """The answers to windows of one size, averaged where they overlap, see `src.data.windows`.

    Args:
        step: see `Answers`.
        window, stride (tuple): (h, w) of a window, and from one to the next.
    """

    def __init__(self, step, window, stride):
        super().__init__(step, window)
        self.stride = stride

    def __call__(self, image):
        windows = Windows(image.shape[2:], self.window, self.stride)
        parts = windows.cut(image.asnumpy()[0])
        return windows.averaged([self.step(ms.Tensor(part[None])).asnumpy()[0] for part in parts])


def planes(logits, size):
    """Yield the logits (h, w) of each class, resized bilinearly to `size`, of logits (K, H, W)."""
    for plane in logits:
        yield cv2.resize(plane, size[::-1], interpolation=cv2.INTER_LINEAR)


def mean_probabilities(answers, size):
    """Yield the probabilities (h, w) of each class, averaged over the logits (K, H, W) of several answers.

    As mmsegmentation averages several scales and flips: softmax at each pixel of the size of the image, then the mean.
    """
    scales = [_largest_and_sum(logits, size) for logits in answers]
    for classes in zip(*(planes(logits, size) for logits in answers)):
        parts = [np.exp(plane - largest) / total for plane, (largest, total) in zip(classes, scales)]
        yield sum(parts) / len(parts)


def _largest_and_sum(logits, size):
    """Return what a softmax over the classes subtracts, and divides by, at each pixel."""
    largest = np.full(size, -np.inf, np.float32)
    for plane in planes(logits, size):
        np.maximum(largest, plane, out=largest)
    return largest, sum(np.exp(plane - largest) for plane in planes(logits, size))


def best_class(numbers):
    """Return the class of the largest number of each pixel, uint8 (h, w), of an iterable of (h, w), one a class."""
    found = best = None
    for number, plane in enumerate(numbers):
        if best is None:
            found, best = np.zeros(plane.shape, np.uint8), plane.copy()
        is_larger = plane > best
        found[is_larger], best = number, np.maximum(best, plane)
    return found
