# SPDX-License-Identifier: Apache-2.0
"""The pictures of the studies: what they have in common."""

import textwrap

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from src.study.report import mean_and_spread
from src.training.atomic import replacing


def subplots(count):
    """Return a figure of `count` panels beside each other, and the panels."""
    return plt.subplots(1, count, figsize=(6.4 * count, 5), layout="constrained")


def save(figure, title, setting, png):
    """Give the figure its title, what is seen, over its `setting`, and write it.

    Raises:
        UserError: the picture cannot be written.
    """
    columns = int(11 * figure.get_figwidth())
    figure.suptitle("\n".join(textwrap.wrap(title, columns)) + "\n", fontsize=13)
    figure.text(0.5, 0, "\n".join(textwrap.wrap(setting, columns * 3 // 2)), ha="center", va="top", fontsize=8)
    try:
        with replacing(png) as temporary:
            figure.savefig(temporary, dpi=150, bbox_inches="tight")
    finally:
        plt.close(figure)


def draw_points(axes, groups, colour, side=0.0, label=None):
    """Draw each group of numbers at 0, 1, 2...: every one a dot, and mean and standard deviation."""
    places = np.arange(len(groups)) + side
    for place, values in zip(places, groups):
        axes.plot(np.full(len(values), place), values, "o", color=colour, alpha=0.35, markersize=4)
    means, spreads = zip(*map(mean_and_spread, groups))
    bars = [spread or 0 for spread in spreads]
    axes.errorbar(places, means, bars, fmt="_", color=colour, markersize=16, capsize=5, label=label)
    axes.grid(axis="y", alpha=0.3)
    axes.margins(x=0.08)


def draw_accuracy(axes, rows):
    """Draw the top-1 of every seed by variant."""
    draw_points(axes, [row["top1"] for row in rows], "C0")
    axes.set(title="Accuracy of every seed; bars: mean ± standard deviation", ylabel="top-1 (%)")
    name_variants(axes, rows)


def draw_times(axes, rows):
    """Draw forward pass and training step by variant, with the quartiles of their runs."""
    for phase, colour, side, label in (("forward", "C0", -0.2, "forward pass"), ("train", "C1", 0.2, "training step")):
        low, middle, high = (
            np.array([row[phase][f"ms_per_image{quartile}"] for row in rows]) for quartile in ("_q1", "", "_q3")
        )
        places = np.arange(len(rows)) + side
        bars = axes.bar(places, middle, 0.38, yerr=(middle - low, high - middle), color=colour, capsize=3, label=label)
        axes.bar_label(bars, fmt="%.2f", fontsize=8, padding=2)
    axes.set(title="Time, medians; bars: quartiles of the runs", ylabel="time (ms an image)")
    axes.grid(axis="y", alpha=0.3)
    axes.margins(y=0.2)
    axes.legend(loc="upper center", ncols=2)
    name_variants(axes, rows)


def name_variants(axes, rows):
    """Write the variants under their places."""
    names = [textwrap.fill(row["label"], 10, break_long_words=False) for row in rows]
    axes.set_xticks(range(len(rows)), names)
