# SPDX-License-Identifier: Apache-2.0
"""Segmenters outside: an image file in, the class of each of its pixels out, by windows of the one size of the file."""

import numpy as np

from src.data.class_colours import from_text, is_colour
from src.data.pixel_transforms import aligned_size, normalised, resized_image, scaled_size
from src.data.transforms import Pixels
from src.data.windows import Windows
from src.image_size import sides
from src.tasks.pixel_answers import Answers, best_class, planes
from src.tasks.pixel_results import open_results
from src.training.deployment import CLASSES, LOGITS, Deployment

# An index PNG has no more values.
_VALUES = 256


class PixelDeployment(Deployment):
    """Images of any size, scaled as in evaluation and covered by windows; an answer is `(classes, pixels)`.

    These are the class of each pixel, uint8 (h, w), and the image, uint8 (h, w, 3), both of the size of the file.

    The description has colours, "#rrggbb" for each label, and what the values in masks mean, ignore_label and
    reduce_zero_label. Its "preprocessing" has scale and divisor, see `src.data.pixel_transforms`, image_size, which is
    the size of a window, and stride, [h, w], from a window to the next.
    """

    outputs, options = (LOGITS, CLASSES), ("overlay",)
    sample = 200  # of many pixels each

    def wrong(self):
        spec, colours = self.spec, self.card.get("colours")
        try:
            Windows(sides(spec["image_size"]), sides(spec["image_size"]), spec["stride"])
            aligned_size(scaled_size((1, 1), spec["scale"]), spec["divisor"])
            if not all(1 <= side <= 100_000 for side in spec["scale"]) or spec["divisor"] < 1:
                raise ValueError("scale takes two sides in pixels, divisor at least 1")
            if spec["in_channels"] != 3:
                raise ValueError("in_channels takes 3")
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            return f"preprocessing cannot be used ({error})"
        if not isinstance(colours, list) or len(colours) != len(self.labels) or not all(map(is_colour, colours)):
            return f"colours are not one of #rrggbb for each of the {len(self.labels)} labels"
        if not isinstance(self.card.get("reduce_zero_label"), bool):
            return "reduce_zero_label is missing or no bool"
        if len(self.labels) + self.first > _VALUES:
            return f"labels are {len(self.labels)}, more than the values of an index PNG"
        return ""

    @property
    def first(self):
        """The value of class 0 in a mask."""
        return int(self.card["reduce_zero_label"])

    def results(self, form, images):
        return {form: [images, *([len(self.labels)] if form == LOGITS else []), *self.spec["image_size"]]}

    def at_once(self, batch_size):
        return 1

    def steps(self, name):
        return [Pixels(lambda image, position: image, name, self.spec["orientation"])]

    def answers(self, run, images):
        for pixels in images:
            yield best_class(planes(self.logits(run, self.scaled(pixels)), pixels.shape[:2])), pixels

    def found(self, answer):
        return answer[0]

    def open_results(self, folder, arguments):
        colours = np.array([from_text(colour) for colour in self.card["colours"]], np.uint8)
        return open_results(folder, arguments, self.labels, colours, self.first)

    def scaled(self, pixels):
        """Return pixels, uint8 (h, w, 3), as evaluation takes them, float32 (3, H, W)."""
        size = aligned_size(scaled_size(pixels.shape[:2], self.spec["scale"]), self.spec["divisor"])
        return normalised(resized_image(pixels, size), self.spec["mean"], self.spec["std"])

    def logits(self, run, image):
        """Return float32 (K, H, W) of an image (3, H, W): averaged where windows overlap.

        Of a network that gives classes, 1 for the class and 0 for the others; where windows overlap, the class that the
        one in whose middle a pixel lies gives it.
        """
        windows = Windows(image.shape[1:], sides(self.spec["image_size"]), self.spec["stride"])
        answers = (answer for (answer,) in run(map(self.taken, windows.cut(image))))
        if self.form == LOGITS:
            return windows.averaged(answers)
        classes = windows.nearest(answers)
        return (classes == np.arange(len(self.labels))[:, None, None]).astype(np.float32)

    def taken(self, image):
        """Return a normalised image (3, h, w) as the network takes it."""
        if not self.as_pixels:
            return image
        mean, std = np.array(self.spec["mean"], np.float32), np.array(self.spec["std"], np.float32)
        return np.rint(255 * (image.transpose(1, 2, 0) * std + mean)).clip(0, 255).astype(np.uint8)


class FileAnswers(Answers):
    """The answers of a file, by windows of its size.

    Args:
        deployment (PixelDeployment): of the file.
        run (Runner): the file.
    """

    def __init__(self, deployment, run):
        super().__init__(_File(deployment, run), sides(deployment.spec["image_size"]))

    def __call__(self, image):
        return self.step(image)


class _File:
    def __init__(self, deployment, run):
        self.deployment, self.run = deployment, run

    def set_train(self, mode):
        pass

    def compile(self, image):
        # What MindSpore compiles, it does at the first call.
        self(image)

    def __call__(self, image):
        return self.deployment.logits(self.run, image.asnumpy()[0])
