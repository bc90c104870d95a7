# SPDX-License-Identifier: Apache-2.0
"""`curves.png`: what a run measured, over its steps."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from src.training.atomic import replacing
from src.training.metrics import read_metrics


def plot_curves(metrics_jsonl, png, drawn):
    """Draw what `metrics_jsonl` holds into the picture file `png`: eight panels, 3000 x 1260 pixels.

    `drawn` are the numbers of an evaluation that it shows, see `Task.drawn`; the first also of the averages.

    Raises:
        UserError: the picture cannot be written.
    """
    lines = read_metrics(metrics_jsonl)
    train, evaluation, averages, paths = (
        [line for line in lines if line["kind"] == kind] for kind in ("train", "eval", "ema", "paths")
    )
    figure, panels = plt.subplots(2, 4, figsize=(20, 8.4))
    # Fixed: matplotlib's own search for a layout takes twice as long as the drawing.
    figure.subplots_adjust(left=0.04, right=0.99, bottom=0.06, top=0.96, wspace=0.22, hspace=0.25)
    loss, accuracy, rate, norm, speed, wait, memory, weights = panels.ravel()
    _draw(loss, train, "loss", label="training")
    if judged := [line for line in evaluation if "loss" in line]:
        _draw(loss, judged, "loss", label="validation", marker="o")
    loss.set(title="Loss", ylabel="cross entropy (nats)")
    for (number, name), marker in zip(drawn.items(), "osD"):
        _draw(accuracy, evaluation, number, label=name, marker=marker)
    if averages:
        number, name = next(iter(drawn.items()))
        _draw(accuracy, averages, number, label=f"{name} of the averages", marker="^")
    accuracy.set(title="Validation", ylabel="%")
    _draw(rate, train, "lr", label="learning rate")
    rate.set(title="Learning rate", ylabel="learning rate")
    _draw(norm, train, "gradient_norm", label="before clipping")
    norm.set(title="Norm of the gradients", ylabel="norm")
    _draw(speed, train, "images_per_s", label="all workers")
    speed.set(title="Throughput", ylabel="images/s", ylim=(0, None))
    _draw(wait, train, "data_wait", label="waiting for images")
    wait.set(title="Waiting for images", ylabel="share of the time", ylim=(0, 1))
    _draw(memory, train, "memory_gb", label="peak so far")
    memory.set(title="Memory", ylabel="GB", ylim=(0, None))
    _draw_paths(weights, paths)
    for axes in panels.ravel():
        axes.set_xlabel("training step")
        axes.grid(alpha=0.3)
        if axes.get_lines():
            axes.legend(**({"loc": "upper center", "ncols": 2} if axes is weights else {}))
    try:
        with replacing(png) as temporary:
            figure.savefig(temporary, dpi=150)
    finally:
        plt.close(figure)


def _draw(axes, lines, key, label, marker=None):
    axes.plot([line["step"] for line in lines], [line[key] for line in lines], label=label, marker=marker, markersize=3)


def _draw_paths(axes, lines):
    """Draw alpha and beta of every layer, coloured by its depth; the legend stands above them."""
    layers = list(lines[0]["alpha"]) if lines else []
    steps = [line["step"] for line in lines]
    colours = plt.cm.ScalarMappable(plt.Normalize(1, max(len(layers), 2)), "viridis")
    for number, layer in enumerate(layers, 1):
        for path, style in (("alpha", "-"), ("beta", "--")):
            label = path if number == 1 else None
            values = [line[path][layer] for line in lines]
            axes.plot(steps, values, style, color=colours.to_rgba(number), label=label, marker=".", markersize=3)
    axes.set(title="Weights of attention and convolution", ylabel="weight")
    if layers:
        bar = axes.figure.colorbar(colours, ax=axes, pad=0.02, label="layer, from the image to the classes")
        bar.set_ticks(sorted({1, len(layers)}))
        # Room for the legend, which would lie over the curves.
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.2 * (high - low))
