# SPDX-License-Identifier: Apache-2.0
"""The size of images: a number of pixels for squares, or their height and width."""


def sides(image_size):
    """Return (H, W) of an `image_size`, a whole number from 1 or a pair (tuple or list) of them.

    Raises:
        ValueError: anything else.
    """
    pair = image_size if isinstance(image_size, (tuple, list)) else (image_size, image_size)
    if len(pair) != 2 or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in pair):
        raise ValueError(f"image_size must be a whole number from 1, or two of them (H, W), got {image_size!r}")
    return tuple(pair)
