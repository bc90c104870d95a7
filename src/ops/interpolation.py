# SPDX-License-Identifier: Apache-2.0
"""Interpolation along one axis as a matrix of weights: NumPy on sizes alone.

Places are the centres of `old` and `new` equal parts of one length, as in PyTorch's `interpolate` with
align_corners=False; beyond the outermost centres the outermost value goes on.
"""

import numpy as np

# Of the cubic kernel: its slope where it first crosses zero. PyTorch's and OpenCV's choice.
SLOPE = -0.75


def linear(distance):
    """The weight of a value at a distance, in steps of the old places."""
    return np.maximum(1 - np.abs(distance), 0)


def cubic(distance):
    """The same by the kernel of Keys (1981): two cubics, smooth where they meet, 0 from two steps on."""
    x = np.abs(distance)
    near = (SLOPE + 2) * x**3 - (SLOPE + 3) * x**2 + 1
    far = SLOPE * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def interpolation(old, new, kernel):
    """Return (new, old) float64: row i has the weights of the old values in the new value i.

    Args:
        old, new (int): lengths.
        kernel: `linear` or `cubic`.
    """
    place = (np.arange(new)[:, None] + 0.5) * old / new - 0.5
    near = np.floor(place).astype(int) + np.arange(-1, 3)
    weights = np.zeros((new, old))
    np.add.at(weights, (np.arange(new)[:, None], np.clip(near, 0, old - 1)), kernel(place - near))
    return weights


def interpolated(grid, size, kernel):
    """Interpolate a NumPy array (H, W, C) to (*size, C), of the same type."""
    rows, columns = (interpolation(old, new, kernel) for old, new in zip(grid.shape, size))
    return np.einsum("yi,xj,ijc->yxc", rows, columns, grid).astype(grid.dtype)
