# SPDX-License-Identifier: Apache-2.0
"""Which classes a network knows, and for which it takes the others: a table, and the confusion matrix as a picture."""

import csv
from pathlib import Path

import matplotlib
import numpy as np

from src.training.atomic import replacing

matplotlib.use("Agg")

import matplotlib.pyplot as plt

# More names than these cannot be read on the axes.
_MOST_NAMES = 60
_HEAD = ("class", "name", "images", "top1", "precision", "taken_for", "times")


def write_per_class(path, confusion, names):
    """Write a line for each class into the .csv file `path`, and the confusion matrix as the .png file beside it.

    A line has the class, its name, its images, how many of them were right in percent (top1), how many of those
    that were taken for it are of it in percent (precision), and the class it was most often taken for wrongly. What has
    no image, or was never given, has an empty cell.

    Args:
        confusion (numpy.ndarray): int (K, K), images by class and best class.
        names (list): of the K classes.

    Raises:
        UserError: a file cannot be written.
    """
    images, given, right = confusion.sum(1), confusion.sum(0), confusion.diagonal()
    wrong = confusion - np.diag(right)
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        write = csv.writer(file).writerow
        write(_HEAD)
        for number, name in enumerate(names):
            other = int(wrong[number].argmax())
            times = int(wrong[number, other])
            write(
                [
                    number,
                    name,
                    images[number],
                    _percent(right[number], images[number]),
                    _percent(right[number], given[number]),
                    names[other] if times else "",
                    times or "",
                ]
            )
    _draw(Path(path).with_suffix(".png"), confusion, names)


def _percent(part, whole):
    return f"{100 * part / whole:.2f}" if whole else ""


def _draw(png, confusion, names):
    """Draw the share of each class (row) that was taken for each (column)."""
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    side = min(4 + 0.25 * len(names), 14)
    figure, axes = plt.subplots(figsize=(side + 1, side), layout="constrained")
    shown = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(shown, label="share of the images of a class")
    axes.set(xlabel="taken for", ylabel="class", title=f"{int(confusion.sum())} images")
    if len(names) <= _MOST_NAMES:
        places = range(len(names))
        axes.set_xticks(places, names, rotation=90)
        axes.set_yticks(places, names)
        if len(names) <= _MOST_NAMES // 3:
            for row, column in np.argwhere(confusion):
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, confusion[row, column], ha="center", va="center", color=colour, fontsize=8)
    try:
        with replacing(png) as temporary:
            figure.savefig(temporary, dpi=150)
    finally:
        plt.close(figure)
