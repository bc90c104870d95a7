# SPDX-License-Identifier: Apache-2.0
"""Images decoded by a pool of threads while the network computes; what cannot be read is passed over and named."""

import collections
import io
import os
import warnings
from pathlib import Path

import mindspore.dataset as ds
import numpy as np
from PIL import Image

from src.data.damage import readable_errors
from src.data.image_folder import IMAGE_TYPES
from src.data.transforms import decode, eval_transform
from src.errors import UserError

# What an image may have, decoded or resized: 0.3 GB of them in colour. A file of kilobytes can claim a thousand times
# as many.
MOST_PIXELS = 100_000_000
# Pixels of four bytes, as BMP files have them, and a header.
_MOST_BYTES = 4 * MOST_PIXELS + 1_000_000
# Of batches, which are ready for the network, and of images on the way there.
_READY = 2

# Of many pixels; we refuse them.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


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
        raise UserError(f"folder {path} has no image ({', '.join(IMAGE_TYPES)})")
    return _walk(path)


def _walk(path):
    closed = []
    for folder, folders, names in os.walk(path, onerror=closed.append):
        folders.sort()
        yield from (Path(folder, name) for name in sorted(names) if name.lower().endswith(IMAGE_TYPES))
    # To be named among what cannot be read.
    yield from (Path(error.filename) for error in closed)


class ImageBatches:
    """Prepared images in batches, in order; iterate once, with `unreadable` complete at the end.

    How many images there are makes no difference to memory.

    Args:
        paths (Iterable): image files.
        spec (dict): how an image is prepared, the arguments of `src.data.transforms.eval_transform`.
        batch_size (int): images of a batch; the last one may be short.
        threads (int): how many prepare images.

    Yields:
        tuple: the paths of the batch, as a list, and its images, as one array.

    Attributes:
        unreadable (list[str]): what is wrong with each image that was passed over.
    """

    def __init__(self, paths, spec, batch_size, threads):
        self.paths, self.spec, self.batch_size, self.threads = paths, spec, batch_size, threads
        self.unreadable = []
        # (number, path, problem) of the images that are on their way, in order.
        self._sent = collections.deque()

    def __iter__(self):
        ds.config.set_prefetch_size(_READY)
        before = ds.config.get_error_samples_mode()
        ds.config.set_error_samples_mode(ds.config.ErrorSamplesMode.SKIP)
        try:
            images = ds.GeneratorDataset(self._encoded, ["image", "number"], python_multiprocessing=False)
            images = images.map(self._checked, "image", num_parallel_workers=self.threads)
            images = images.map(eval_transform(**self.spec), "image", num_parallel_workers=self.threads)
            batches = images.batch(self.batch_size, num_parallel_workers=1)
            for images, numbers in batches.create_tuple_iterator(num_epochs=1, output_numpy=True):
                yield [self._arrived(number) for number in numbers], images
            self._arrived(None)
        finally:
            ds.config.set_error_samples_mode(before)

    def _encoded(self):
        """Yield the content of each file, and its number."""
        for number, path in enumerate(self.paths):
            try:
                content = _read(path)
            except UserError as error:
                self._sent.append((number, path, str(error)))
                continue
            self._sent.append((number, path, None))
            yield np.frombuffer(content, np.uint8), np.int64(number)

    def _checked(self, content):
        check_image("", content.tobytes(), self.spec["resize"])
        return content

    def _arrived(self, number):
        """Return the path of the image of this number; those before it, with None all, got lost on the way."""
        while self._sent:
            sent, path, problem = self._sent.popleft()
            if sent == number:
                return path
            self.unreadable.append(problem or self._problem(path))

    def _problem(self, path):
        # MindSpore passes over what fails, and says why only where it is called for one image.
        try:
            content = _read(path)
            check_image(path, content, self.spec["resize"])
            decode(path, content, eval_transform(**self.spec))
        except UserError as error:
            return str(error)
        return f"image {path} cannot be prepared; replace or remove it"


def check_image(name, content, resize):
    """Refuse what is no image, of unreasonable size, or would crash MindSpore.

    Args:
        name: of the file.
        content (bytes): the whole of it.
        resize (int): pixels that its shorter side is going to have.

    Raises:
        UserError: names the image and what is wrong.
    """
    if not content:
        raise UserError(f"image {name} is empty; replace or remove it")
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG", "BMP")) as image:
            short, long = sorted(image.size)
    except Image.DecompressionBombError:
        raise UserError(f"image {name} has more than {MOST_PIXELS} pixels; replace or remove it") from None
    except Exception as error:  # a damaged or hostile file can raise anything
        raise UserError(f"image {name} is not a JPEG, PNG or BMP image, or damaged; replace or remove it") from error
    if short < 1:
        raise UserError(f"image {name} has no pixels; replace or remove it")
    # Resizing a strip makes it longer, too.
    if max(short * long, resize**2 * long // short) > MOST_PIXELS:
        raise UserError(
            f"image {name} has {short} x {long} pixels, here or resized to {resize} more than {MOST_PIXELS}; "
            "replace or remove it"
        )
    with readable_errors(name, content):
        pass


def _read(path):
    path = Path(path)
    try:
        # A pipe would be waited for without an end.
        if path.exists() and not path.is_file():
            raise UserError(f"image {path} is no file, or a folder that cannot be listed; mend or remove it")
        if path.stat().st_size > _MOST_BYTES:
            raise UserError(f"image {path} has more than {_MOST_BYTES} bytes; replace or remove it")
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read image {path}: {error.strerror}") from error
