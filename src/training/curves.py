# SPDX-License-Identifier: Apache-2.0
"""`curves.png`: loss, accuracy and learning rate of a run over its steps."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from src.training.atomic import replacing
from src.training.metrics import read_metrics


def plot_curves(metrics_jsonl, png):
    """Draw what `metrics_jsonl` holds into the picture file `png`.

    Raises:
        UserError: the picture cannot be written.
    """
    lines = read_metrics(metrics_jsonl)
    train = [line for line in lines if line["kind"] == "train"]
    evaluation = [line for line in lines if line["kind"] == "eval"]
    averages = [line for line in lines if line["kind"] == "ema"]
    figure, (loss, accuracy, rate) = plt.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
    _draw(loss, train, "loss", label="training (smoothed labels)")
    _draw(loss, evaluation, "loss", label="validation", marker="o")
    loss.set(title="Loss", ylabel="cross entropy (nats)")
    _draw(accuracy, evaluation, "top1", label="top-1", marker="o")
    _draw(accuracy, evaluation, "top5", label="top-5", marker="s")
    if averages:
        _draw(accuracy, averages, "top1", label="top-1 of the averages", marker="^")
    accuracy.set(title="Validation accuracy", ylabel="accuracy (%)")
    _draw(rate, train, "lr", label="learning rate")
    rate.set(title="Learning rate", ylabel="learning rate")
    for axes in (loss, accuracy, rate):
        axes.set_xlabel("training step")
        axes.grid(alpha=0.3)
        axes.legend()
    try:
        with replacing(png) as temporary:
            figure.savefig(temporary, dpi=150)
    finally:
        plt.close(figure)


def _draw(axes, lines, key, label, marker=None):
    axes.plot([line["step"] for line in lines], [line[key] for line in lines], label=label, marker=marker, markersize=3)
