# SPDX-License-Identifier: Apache-2.0
"""What differs between tasks once a network is trained. `src.deploy` is handed a `Deployment` and knows no other
difference: neither what a file of a task gives, nor what is made of that."""

import itertools

import numpy as np

from src.errors import UserError

# What a file may give, by name: the numbers of each class along axis 1; those, positive with sum 1; or the class.
LOGITS, PROBABILITIES, CLASSES = "logits", "probabilities", "classes"


class Deployment:
    """What is to be known of a network outside, beside the network: made of its description alone.

    Args:
        card (dict): what `Task.describe` returned, or the description beside an exported file, which holds it:
            "preprocessing", "labels", and what else the task needs. "preprocessing" has image_size, [H, W], mean and
            std, by channel, of pixels in 0..1, in_channels, and orientation (of `src.data.image_files.decode`).

    Attributes:
        outputs (tuple): what files may give, of `LOGITS`, `PROBABILITIES` and `CLASSES`.
        options (tuple): of `infer.py`, those that belong to this task and not to all.
        labels (list): names of the classes.
        sample (int): images that are enough to tell how accurate a network is, or which values occur in it.
        as_pixels (bool): the file takes uint8 (B, H, W, C) and normalises them itself.
    """

    outputs, options, sample = (), (), 2000

    def __init__(self, card):
        self.card, self.spec, self.labels = card, card["preprocessing"], card["labels"]
        self.as_pixels = card.get("input", {}).get("dtype") == "uint8"

    def wrong(self):
        """Say what of the description cannot be used; "" if nothing. Labels are text, mean and std were looked at."""
        raise NotImplementedError

    def shape(self, output, images):
        """Return the sizes of what a file gives for so many `images`, as a list; `output` is one of `outputs`."""
        raise NotImplementedError

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
            images (numpy.ndarray): what `steps` made of as many as `at_once` says.
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
        logits: `logits(images)` of at most `batch_size` images, an array: what the network gives of each.
        batch_size (int): how many.
        is_fixed (bool): it takes no fewer either, so the last ones are filled up. Otherwise they are to as many as came
            before: MindSpore compiles anew for each number.
    """

    def __init__(self, logits, batch_size, is_fixed=True):
        self.logits, self.batch_size = logits, batch_size
        self._least = batch_size if is_fixed else 0

    def __call__(self, images):
        """Yield what the network gives for each of an iterable of images."""
        images = iter(images)
        while group := list(itertools.islice(images, self.batch_size)):
            self._least = max(self._least, len(group))
            batch = np.stack(group)
            batch = np.pad(batch, [(0, self._least - len(group))] + [(0, 0)] * (batch.ndim - 1))
            yield from self.logits(batch)[: len(group)]


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
