# SPDX-License-Identifier: Apache-2.0
"""scikit-learn's scanned handwritten digits as an image folder: real images that need no download."""

import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from src.errors import UserError

# One of five images of each digit is held out: 355 of 1,797.
HELD_OUT = 5


def write_digits(data_dir):
    """Write the digits as data_dir/{train,val}/{0..9}/INDEX.png, 32x32 8-bit grey.

    The scans are 8x8 with 17 grey levels (UCI ML optical recognition of handwritten digits, test part); they are
    enlarged bicubically. The split is fixed. The folder appears whole or not at all; one that is there is left alone.

    Raises:
        UserError: `data_dir` holds something else, or cannot be written.
    """
    data_dir = Path(data_dir)
    if _is_written(data_dir):
        return
    try:
        data_dir.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".digits-", dir=data_dir.parent) as scratch:
            _write_images(Path(scratch) / "digits")
            os.rename(Path(scratch) / "digits", data_dir)
    except OSError as error:
        # Another worker of the same job may have been first.
        if not _is_written(data_dir):
            raise UserError(
                f"cannot write the digits to {data_dir} ({error.strerror}); --data_dir takes a new folder"
            ) from error


def _is_written(data_dir):
    return all((data_dir / split / str(digit)).is_dir() for split in ("train", "val") for digit in range(10))


def _write_images(folder):
    # Loading scikit-learn takes a second, needed only the first time.
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    for digit in range(10):
        for split in ("train", "val"):
            (folder / split / str(digit)).mkdir(parents=True)
        for position, index in enumerate(np.flatnonzero(digits.target == digit)):
            split = "val" if position % HELD_OUT == HELD_OUT - 1 else "train"
            image = Image.fromarray(grey[index]).resize((32, 32), Image.BICUBIC)
            image.save(folder / split / str(digit) / f"{index:04d}.png")
