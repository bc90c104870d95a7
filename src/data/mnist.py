# SPDX-License-Identifier: Apache-2.0
"""MNIST (LeCun et al. 1998) and its relatives, Fashion-MNIST, KMNIST and EMNIST: grey images as IDX files."""

import dataclasses
import gzip
import math
import zlib
from functools import lru_cache
from pathlib import Path

import mindspore.dataset as ds
import numpy as np

from src.data.split import ImageSplit
from src.errors import UserError

KINDS = {1: "labels", 3: "images"}  # by how many dimensions a file has
GZIP = b"\x1f\x8b"
# Its files hold each image with rows and columns exchanged.
EXCHANGED = "emnist-"


@dataclasses.dataclass(frozen=True)
class MnistSplit(ImageSplit):
    """One split of a data set of IDX files; used as `image_folder.Split` is.

    Attributes:
        folder: the path that the names of the files begin with, for messages.
        classes: their names; the position is the label.
        pixels: uint8 (n, H, W), grey.
        labels: int32 (n,).
    """

    folder: Path
    classes: list[str]
    pixels: np.ndarray
    labels: np.ndarray

    @property
    def images(self):
        return len(self.labels)

    def read(self, order, threads):
        rows = ds.NumpySlicesDataset({"image": order, "label": self.labels[order]}, shuffle=False)
        return rows.map(self.image, "image", num_parallel_workers=threads)

    def image(self, position):
        """Return the pixels of an image, uint8 (H, W)."""
        return np.ascontiguousarray(self.pixels[position])

    def list_labels(self):
        return self.labels


def open_mnist(folder, split, names):
    """Return the `MnistSplit` of the files SPLIT-images-idx3-ubyte and SPLIT-labels-idx1-ubyte in `folder`.

    Args:
        split: what the names of both files begin with: train, t10k, emnist-balanced-train, ...
        names (list): of the classes, by their labels; none: the labels, as text.

    Raises:
        UserError: a file is missing, damaged or of another kind, the two do not belong together, or a label has no
            name.
    """
    pixels = _arrays(folder, f"{split}-images-idx3-ubyte", 3)
    labels = _arrays(folder, f"{split}-labels-idx1-ubyte", 1)
    folder = Path(folder, split)
    if len(pixels) != len(labels):
        raise UserError(
            f"{folder}-images-idx3-ubyte has {len(pixels)} images but its labels are {len(labels)}; one of the two "
            "files is of another split or data set, replace it"
        )
    if not pixels.size:
        raise UserError(f"{folder}-images-idx3-ubyte has no image; replace it")
    largest = int(labels.max())
    if names and largest >= len(names):
        raise UserError(
            f"{folder}-labels-idx1-ubyte has the label {largest} but data.class_names names {len(names)} classes, "
            f"0 to {len(names) - 1}; name all of them"
        )
    classes = list(names) or [str(label) for label in range(largest + 1)]
    pixels = pixels.swapaxes(1, 2) if split.startswith(EXCHANGED) else pixels
    return MnistSplit(folder, classes, pixels, labels.astype(np.int32))


def _arrays(folder, name, dimensions):
    """Return what a file holds, uint8 with so many dimensions, whether it is compressed or not."""
    paths = [Path(folder, name + ending) for ending in ("", ".gz")]
    try:
        path = next((path for path in paths if path.exists()), paths[0])
        status = path.stat()
        return _read(path, dimensions, (status.st_mtime_ns, status.st_size))
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error.strerror}); --data_dir takes the folder with {name}, as it is or as .gz, and "
            "data.train_split, data.val_split what the names of the files begin with"
        ) from error


# Every epoch asks for both files of a split.
@lru_cache(maxsize=4)
def _read(path, dimensions, version):
    content = path.read_bytes()
    if content.startswith(GZIP):
        try:
            content = gzip.decompress(content)
        except (EOFError, OSError, zlib.error) as error:
            raise UserError(f"{path} is truncated or damaged ({error}); get it anew") from error
    # Two zeros, the type of the numbers (8: uint8), how many dimensions, and the length of each.
    begin = 4 + 4 * dimensions
    if content[:3] != b"\0\0\x08" or len(content) < begin:
        raise UserError(f"{path} is no IDX file of bytes, or damaged; get it anew")
    if content[3] != dimensions:
        held = KINDS.get(content[3], f"{content[3]} dimensions")
        raise UserError(f"{path} holds {held}, not {KINDS[dimensions]}: is it another file by this name? Replace it")
    shape = np.frombuffer(content, ">u4", dimensions, 4).tolist()
    if len(content) - begin != math.prod(shape):
        raise UserError(
            f"{path} has {len(content) - begin} bytes after its head, which says {' x '.join(map(str, shape))}: it is "
            "damaged; get it anew"
        )
    return np.frombuffer(content, np.uint8, offset=begin).reshape(shape)
