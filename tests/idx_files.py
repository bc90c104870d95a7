# SPDX-License-Identifier: Apache-2.0
"""IDX files, the form of MNIST and its relatives."""

from pathlib import Path

import numpy as np


def idx(array):
    """Return the bytes of the IDX file of an array of bytes: two zeros, 8 for uint8, and the sides, big end first."""
    array = np.asarray(array, np.uint8)
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_split(folder, split, pixels, labels, pack=bytes):
    """Write `pixels` (n, H, W) and `labels` (n,) as the two files of a split, through `pack`."""
    ending = "" if pack is bytes else ".gz"
    Path(folder, f"{split}-images-idx3-ubyte{ending}").write_bytes(pack(idx(pixels)))
    Path(folder, f"{split}-labels-idx1-ubyte{ending}").write_bytes(pack(idx(labels)))
