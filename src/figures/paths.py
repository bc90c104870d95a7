# SPDX-License-Identifier: Apache-2.0
"""Which path each layer prefers: log|alpha / beta| over depth (the paper's figure of learned path weights)."""

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import MaxNLocator

from src.errors import UserError
from src.figures.picture import picture
from src.training.metrics import read_metrics


def plot_paths(runs, png):
    """Draw log|alpha / beta| of every ACmix layer: of one run after each epoch, of several runs after their last one.

    Args:
        runs (dict): name of a run -> its metrics.jsonl.
        png: the picture file to write.

    Raises:
        UserError: a run tells of no alpha and beta, the runs have different layers, or the picture cannot be written.
    """
    epochs = {name: _of_run(path) for name, path in runs.items()}
    layers = {tuple(lines[-1]["alpha"]) for lines in epochs.values()}
    if len(layers) > 1:
        raise UserError("the runs have different layers, which no one figure can hold; give runs of one model")
    places = np.arange(len(min(layers)))
    with picture(png, size=(max(7.5, 0.4 * len(places) + 3), 4.5)) as (figure, axes):
        axes.axhline(0, color="0.4", linewidth=1)
        if len(epochs) == 1:
            _draw_epochs(figure, axes, places, *epochs.values())
        else:
            for name, lines in epochs.items():
                axes.plot(places, _log_ratio(lines[-1]), marker="o", markersize=4, label=name)
            axes.legend()
        axes.set_xticks(places, min(layers), rotation=90, fontsize=8)
        axes.set(
            title="Which path does a layer prefer? attention above 0, convolution below",
            xlabel="ACmix layer, from the image to the classes",
            ylabel="log |alpha / beta|",
        )
        axes.grid(alpha=0.3)


def _of_run(metrics_jsonl):
    lines = [line for line in read_metrics(metrics_jsonl) if line["kind"] == "paths" and line["alpha"]]
    if not lines:
        raise UserError(f"{metrics_jsonl} tells of no alpha and beta; give the folder of a run of an ACmix model")
    return lines


def _log_ratio(line):
    alpha, beta = (np.array(list(line[path].values())) for path in ("alpha", "beta"))
    with np.errstate(divide="ignore"):
        ratio = np.log(np.abs(alpha)) - np.log(np.abs(beta))
    # A weight of exactly zero has no logarithm: a gap in the line.
    return np.where(np.isfinite(ratio), ratio, np.nan)


def _draw_epochs(figure, axes, places, lines):
    colours = mpl.cm.ScalarMappable(mpl.colors.Normalize(0, lines[-1]["epoch"]), "viridis_r")
    for line in lines:
        is_last = line is lines[-1]
        axes.plot(
            places,
            _log_ratio(line),
            color=colours.to_rgba(line["epoch"]),
            linewidth=2 if is_last else 0.8,
            marker="o" if is_last else None,
            markersize=4,
        )
    figure.colorbar(colours, ax=axes, label="after epoch (thick: the last)", ticks=MaxNLocator(integer=True))
