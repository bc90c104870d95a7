# SPDX-License-Identifier: Apache-2.0
"""Refusals that the families share."""


def check_whole(**numbers):
    """Raise ValueError, naming the argument, unless each is a whole number from 1."""
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number from 1, got {value!r}")


def check_depths(depths, stages):
    """Raise ValueError unless `depths` holds a whole number of blocks from 1 for each of the `stages`."""
    if not isinstance(depths, (list, tuple)) or len(depths) != stages:
        raise ValueError(f"depths must be {stages} numbers of blocks, got {depths!r}")
    for depth in depths:
        check_whole(depths=depth)


def first_stride(stem, strides, image_size):
    """Return `strides[stem]`, by how much the first of the four maps is smaller than an image of (H, W) pixels.

    Raises:
        ValueError: an unknown stem, or an image smaller than the stride of the last map, eight times the first's.
    """
    if stem not in strides:
        raise ValueError(f"stem must be one of {', '.join(strides)}, got {stem!r}")
    smallest = strides[stem] * 8
    if min(image_size) < smallest:
        advice = f"; stem='small' takes images from {strides['small'] * 8} pixels" if stem != "small" else ""
        raise ValueError(
            f"image_size must be at least {smallest} with stem={stem!r}, got {image_size[0]} x {image_size[1]}{advice}"
        )
    return strides[stem]
