# SPDX-License-Identifier: Apache-2.0
"""What training made of the shifts: the kernels of the grouped convolution before and after (paper, section 4.3)."""

import numpy as np

from src.errors import UserError
from src.figures.picture import picture
from src.ops.shift import one_hot_shifts
from src.training.checkpoint import read_checkpoint

_NAME = ".shift.weight"


def plot_shifts(checkpoint, png, layers=()):
    """Draw the k*k shift kernels of some layers, each the mean over all output channels, under those they began as.

    Args:
        checkpoint: a `.ckpt` file.
        png: the picture file to write.
        layers: names of layers; none: the first, the middle and the last one.

    Raises:
        UserError: the checkpoint cannot be read, has no shift kernels or no such layer, or the picture cannot be
            written.
    """
    parameters, _ = read_checkpoint(checkpoint)
    kernels = {n.removesuffix(_NAME): p.asnumpy() for n, p in parameters.items() if n.endswith(_NAME)}
    # The moments of an optimiser bear the names of their parameters behind a prefix.
    kernels = {name: kernel for name, kernel in kernels.items() if ":" not in name and kernel.ndim == 4}
    if not kernels:
        raise UserError(f"checkpoint {checkpoint} has no shift kernels; give one of an ACmix model trained with them")
    layers = list(layers) or _some(list(kernels))
    for layer in layers:
        if layer not in kernels:
            raise UserError(f"layer {layer} has no shift kernels; it is one of {', '.join(kernels)}")
    size = kernels[layers[0]].shape[-1]
    before = one_hot_shifts(size)
    moved = {layer: np.sqrt(np.square(kernels[layer] - before).mean()) for layer in layers}
    names = {layer: f"{_broken(layer)}\nmoved {moved[layer]:.2g}" for layer in layers}
    rows = {"before training": before, **{names[layer]: kernels[layer].mean(0) for layer in layers}}
    limit = max(np.abs(row).max() for row in rows.values())
    figure_size = (1.15 * size * size + 1.5, 1.35 * len(rows) + 0.6)
    with picture(png, len(rows), size * size, figure_size, squeeze=False) as (figure, axes):
        for row, (name, taps) in zip(axes, rows.items()):
            row[0].set_ylabel(name, fontsize=8)
            for tap, (ax, kernel) in enumerate(zip(row, taps)):
                image = ax.imshow(kernel, cmap="RdBu_r", vmin=-limit, vmax=limit)
                ax.set(xticks=[], yticks=[])
                if name == "before training":
                    down, right = tap // size - size // 2, tap % size - size // 2
                    ax.set_title(f"shift ({down:+d}, {right:+d})", fontsize=8)
        figure.suptitle(
            "Shift kernels before and after training: mean over the output channels, and how far one moved (rms)"
        )
        figure.colorbar(image, ax=axes, label="weight", shrink=0.8)


def _some(names):
    """The first, the middle and the last of a list, in order and once each."""
    return [names[i] for i in sorted({0, len(names) // 2, len(names) - 1})]


def _broken(name):
    """A layer's name on lines short enough to stand beside a row."""
    return name.removesuffix(".convolution").replace(".", ".\n", 1)
