# SPDX-License-Identifier: Apache-2.0
"""What all figures share: how one is written."""

from contextlib import contextmanager

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from src.training.atomic import replacing


@contextmanager
def picture(png, rows=1, columns=1, size=(7, 4.5), **arguments):
    """Give `(figure, axes)` as `plt.subplots` does, to be drawn on, and write the picture file `png` at the end.

    Args:
        size (tuple): (width, height) in inches.

    Raises:
        UserError: the picture cannot be written.
    """
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", **arguments)
    try:
        yield figure, axes
        with replacing(png) as temporary:
            figure.savefig(temporary, dpi=150)
    finally:
        plt.close(figure)
