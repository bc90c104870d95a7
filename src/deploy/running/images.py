# SPDX-License-Identifier: Apache-2.0
"""Images decoded by a pool of threads while the network computes; what cannot be read is passed over and named."""

import collections
import os
from pathlib import Path

import mindspore.dataset as ds
import numpy as np

from src.data.image_files import ENDINGS, count_others, describe_others, is_hidden, is_image, read_file, shown
from src.errors import UserError

# Of batches, which are ready for the network, and of images on the way there.
_READY = 2


def find_images(path):
    """Return an iterator over the image file `path`, or over the images in and below the folder `path`, in order.

    Raises:
        UserError: there is no such file or folder, or the folder holds no image.
    """
    path = Path(path)
    if path.is_file():
        return iter([path])
    if not path.is_dir():
        raise UserError(f"there is no image or folder {path}")
    if next(_walk(path), None) is None:
        raise UserError(f"folder {path} has no image ({', '.join(ENDINGS)})")
    return _walk(path)


def others_below(path):
    """Return the line on images of other kinds in and below a folder, which `find_images` passes over; "" if none."""
    counts = collections.Counter()
    for _, folders, names in os.walk(path):
        _pass_over(folders)
        counts.update(count_others(names))
    return describe_others(path, counts)


def _walk(path):
    closed = []
    for folder, folders, names in os.walk(path, onerror=closed.append):
        _pass_over(folders)
        yield from (Path(folder, name) for name in sorted(names) if is_image(name))
    # To be named among what cannot be read.
    yield from (Path(error.filename) for error in closed)


def _pass_over(folders):
    """Take out of `folders`, those that `os.walk` is going to enter, the hidden ones, and sort the rest."""
    folders[:] = sorted(name for name in folders if not is_hidden(name))


class ImageBatches:
    """Prepared images in batches, in order; iterate once, with `unreadable` complete at the end.

    How many images there are makes no difference to memory.

    Args:
        paths (Iterable): image files.
        steps: `steps(name)` returns how an image is prepared, see `src.training.deployment.Deployment`.
        batch_size (int): images of a batch; the last one may be short.
        threads (int): how many prepare images.
        columns (sequence): names of what the steps make of an image.

    Yields:
        tuple: the paths of the batch, as a list, and its images, a list with an array for each column.

    Attributes:
        unreadable (list[str]): what is wrong with each image that was passed over.
        turned (int): images whose EXIF orientation was not applied.
    """

    def __init__(self, paths, steps, batch_size, threads, columns=("image",)):
        self.paths, self.batch_size, self.threads, self.columns = paths, batch_size, threads, list(columns)
        self.unreadable = []
        # Path and problem of the images that are on their way, by their numbers, in order.
        self._sent = {}
        self._steps = steps(lambda number: self._sent[number][0])

    @property
    def turned(self):
        return self._steps[0].turned

    def __iter__(self):
        ds.config.set_prefetch_size(_READY)
        before = ds.config.get_error_samples_mode()
        ds.config.set_error_samples_mode(ds.config.ErrorSamplesMode.SKIP)
        try:
            images = ds.GeneratorDataset(self._encoded, ["content", "position", "number"], python_multiprocessing=False)
            images = images.map(self._steps, ["content", "position"], self.columns, num_parallel_workers=self.threads)
            batches = images.batch(self.batch_size, num_parallel_workers=1)
            for *images, numbers in batches.create_tuple_iterator(num_epochs=1, output_numpy=True):
                yield [self._arrived(int(number)) for number in numbers], images
            self._arrived(None)
        finally:
            ds.config.set_error_samples_mode(before)

    def _encoded(self):
        """Yield the content of each file, and its number, twice: the steps use one up."""
        for number, path in enumerate(self.paths):
            try:
                content = read_file(path)
            except UserError as error:
                self._sent[number] = path, str(error)
                continue
            self._sent[number] = path, None
            yield np.frombuffer(content, np.uint8), np.int64(number), np.int64(number)

    def _arrived(self, number):
        """Return the path of the image of this number; those before it, with None all, got lost on the way."""
        while self._sent:
            sent = next(iter(self._sent))
            path, problem = self._sent.pop(sent)
            if sent == number:
                return path
            problem = problem or self._steps[0].problems.pop(sent, None)
            self.unreadable.append(problem or f"image {shown(path)} cannot be prepared; replace or remove it")
