# SPDX-License-Identifier: Apache-2.0
"""What differs between tasks once a network is trained. `src.deploy` is handed a `Deployment` and knows no other
difference: neither what a file of a task gives, nor what is made of that."""

import itertools

import numpy as np

from src.errors import UserError
from src.training.endings import CLASSES, LOGITS, PROBABILITIES, Ending

# Forms of detectors' files: what is found on an image, or the boxes of all anchors with their scores.
DETECTIONS, RAW = "detections", "raw"
# Results that are int32 in every file.
WHOLE_NUMBERS = (CLASSES, "labels", "count")


def results_of(card):
    """Return what a description says of each result of its file, name, shape and dtype, as a list of dicts.

    There it is one dict where there is one result, and a list of them where there are several.
    """
    given = card.get("output", [])
    return given if isinstance(given, list) else [given]


class Deployment:
    """What is to be known of a network outside, beside the network: made of its description alone.

    Args:
        card (dict): what `Task.describe` returned, or the description beside an exported file, which holds it:
            "preprocessing", "labels", and what else the task needs. "preprocessing" has image_size, [H, W], mean and
            std, by channel, of pixels in 0..1, in_channels, and orientation (of `src.data.image_files.decode`).

    Attributes:
        outputs (tuple): the forms that files may have, by what they give; the first is the usual one.
        refused (dict): of "float16" and "int8", those that make no sense, and why.
        unit (str): what differences between a file and its network are parts of.
        columns (tuple): names of what `steps` make of an image.
        options (tuple): of `infer.py`, those that belong to this task and not to all.
        labels (list): names of the classes.
        sample (int): images that are enough to tell how accurate a network is, or which values occur in it.
        as_pixels (bool): the file takes uint8 (B, H, W, C) and normalises them itself.
    """

    outputs, options, sample = (), (), 2000
    refused, unit, columns = {}, "of the largest logit", ("image",)

    def __init__(self, card):
        self.card, self.spec, self.labels = card, card["preprocessing"], card["labels"]
        self.as_pixels = card.get("input", {}).get("dtype") == "uint8"

    def wrong(self):
        """Say what of the description cannot be used; "" if nothing. Labels are text, mean and std were looked at."""
        raise NotImplementedError

    def results(self, form, images):
        """Return what a file of one of `outputs` gives for so many `images`: {name: sizes, as a list}, in order."""
        raise NotImplementedError

    @property
    def form(self):
        """Which of `outputs` the file has, None where that is none; of a network without a file the usual one."""
        names = [result.get("name") or LOGITS for result in results_of(self.card)] or [
            *self.results(self.outputs[0], 1)
        ]
        return next((form for form in self.outputs if [*self.results(form, 1)] == names), None)

    def served(self, network, form):
        """Return the Cell that a file holds: images (B, C, H, W), normalised, to the `results` of `form`, in order."""
        return Ending(network, form)

    def difference(self, form, computed, expected):
        """Return by how much what a file gives differs from what its network does, in `unit`; NaN: it is nonsense.

        Args:
            form (str): of the file.
            computed (list): its results.
            expected (list): what the network gives for the same images.
        """
        (computed,), (expected,) = computed, expected
        expected = softmax(expected) if form == PROBABILITIES else expected
        largest = np.abs(expected).max() or 1
        if computed.dtype.kind == "f":
            return np.abs(computed - expected).max() / largest
        # By how much the class is below the best one: rounding may choose either of two.
        if computed.min() < 0 or computed.max() >= expected.shape[1]:
            return np.nan
        return (expected.max(1) - np.take_along_axis(expected, computed[:, None], 1)[:, 0]).max() / largest

    def at_once(self, batch_size):
        """Return how many images are read at once for a network that takes `batch_size`."""
        raise NotImplementedError

    def steps(self, name):
        """Return the steps of a data set from the bytes of an image file and its position to what `answers` takes.

        Args:
            name: `name(position)` of the file, for messages; the first step is a `src.data.transforms.Pixels`.
        """
        raise NotImplementedError

    def answers(self, run, images):
        """Return an answer for each of a batch of images.

        Args:
            run (Runner): the network.
            images (numpy.ndarray): what `steps` made of as many as `at_once` says; an array for each of `columns`.
        """
        raise NotImplementedError

    def found(self, answer):
        """Return the class, or classes, that an answer tells, as an integer array."""
        raise NotImplementedError

    def open_results(self, folder, arguments):
        """Yield `write(path, answer)`, a context manager, that shows or writes the answer to an image.

        Args:
            folder (Path): below which the images lie.
            arguments (argparse.Namespace): of `infer.py`: `options`, and output and json.

        Raises:
            UserError: the arguments contradict each other, or nothing can be written there.
        """
        raise NotImplementedError


class Runner:
    """A network, run on any number of images, as many at once as it takes.

    Args:
        results: `results(images)` of at most `batch_size` images, a list of arrays: what the network gives of each.
        batch_size (int): how many.
        is_fixed (bool): it takes no fewer either, so the last ones are filled up. Otherwise they are to as many as came
            before: MindSpore compiles anew for each number.
    """

    def __init__(self, results, batch_size, is_fixed=True):
        self.results, self.batch_size = results, batch_size
        self._least = batch_size if is_fixed else 0

    def __call__(self, images):
        """Yield what the network gives for each of an iterable of images, a tuple of arrays."""
        images = iter(images)
        while group := list(itertools.islice(images, self.batch_size)):
            self._least = max(self._least, len(group))
            batch = np.stack(group)
            batch = np.pad(batch, [(0, self._least - len(group))] + [(0, 0)] * (batch.ndim - 1))
            yield from itertools.islice(zip(*self.results(batch)), len(group))


def refuse_other_images(whose, spec, wanted):
    """Refuse a file made for images that are prepared otherwise than those at hand.

    Args:
        whose (str): file this is, for the message.
        spec, wanted (dict): the preprocessing of the file, and that of the images; what is in both has to agree.

    Raises:
        UserError: names what differs.
    """
    for name, value in wanted.items():
        if spec.get(name) != value:
            raise UserError(
                f"{whose} was exported for images of {name} {spec.get(name)} but --config has {value}; give the "
                "configuration it was exported with, or export again"
            )


def softmax(logits):
    """(B, K, ...) -> (B, K, ...), positive, with sum 1 over the classes."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
