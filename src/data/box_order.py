# SPDX-License-Identifier: Apache-2.0
"""Which images of two shapes, wide and tall, make a batch together: geometry of numbers, no image."""

import numpy as np


def training_batches(is_tall, size, random, is_changing=False):
    """Return the positions of the images of each batch, int (steps, size), in a random order.

    Args:
        is_tall: bool (n,), of each image.
        size (int): images of a batch, all workers together.
        random (numpy.random.Generator): draws the order.
        is_changing (bool): whether another epoch may have others tall; all epochs have as many batches then.

    Images that do not fill a batch of their shape stay out.
    """
    order = random.permutation(len(is_tall))
    groups = (order[~is_tall[order]], order[is_tall[order]])
    batches = np.concatenate([group[: len(group) // size * size].reshape(-1, size) for group in groups])
    # Two groups fill at least one batch less than all together would.
    steps = len(is_tall) // size - 1 if is_changing else len(batches)
    return random.permutation(batches)[: max(steps, 0)]


def evaluation_batches(is_tall, size):
    """Return two int arrays (steps, size): positions of the images of each batch, and the same with -1 for repeats.

    Batches are filled up with images that are in them already; each image is once in the second array.

    Args: as `training_batches`.
    """
    positions, index = [], []
    for group in (np.flatnonzero(~is_tall), np.flatnonzero(is_tall)):
        if len(group):
            lacking = -len(group) % size
            positions.append(np.concatenate([group, np.full(lacking, group[-1])]))
            index.append(np.concatenate([group, np.full(lacking, -1)]))
    return tuple(np.concatenate(parts).reshape(-1, size) for parts in (positions, index))
