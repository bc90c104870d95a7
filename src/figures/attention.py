# SPDX-License-Identifier: Apache-2.0
"""What a query attends, over the picture it looks at."""

import numpy as np
from matplotlib.colors import ListedColormap

from src.errors import UserError
from src.figures.attended import attended
from src.figures.picture import picture

_RED = ListedColormap(["red"])


def plot_attention(network, image, spec, place, png, layers=()):
    """Draw the picture with a query, and for some layers the attention weights of that query, the mean over the heads.

    Args:
        network (nn.Cell): a backbone of the registry.
        image (np.ndarray): float32 (C, S, S), normalised: what the network sees.
        spec (dict): how it was prepared, see `src.data.transforms.preprocessing`.
        place (tuple): (y, x) of the query, each from 0 to 1.
        png: the picture file to write.
        layers: names of layers; none: the first and the last one of each size of map.

    Raises:
        UserError: the network has no attention or no such layer, or the picture cannot be written.
    """
    found = {result.layer: result for result in attended(network, image, place)}
    for layer in layers:
        if layer not in found:
            raise UserError(f"layer {layer} has no attention; it is one of {', '.join(found)}")
    shown = _to_look_at(image, spec["mean"], spec["std"])
    results = [found[layer] for layer in layers] or _ends_of_sizes(list(found.values()))
    columns = min(4, len(results) + 1)
    rows = -(-(len(results) + 1) // columns)
    with picture(png, rows, columns, (3 * columns, 3.1 * rows + 0.5), squeeze=False) as (figure, axes):
        axes = axes.ravel()
        for ax in axes:
            ax.axis("off")
        _show(axes[0], shown)
        axes[0].plot(place[1], place[0], "+", color="red", markersize=14, markeredgewidth=2)
        axes[0].set_title("picture and query", fontsize=9)
        for ax, result in zip(axes[1:], results):
            weights = result.weights.mean(0)
            _show(ax, shown)
            strength = weights / weights.max()
            ax.imshow(np.ones_like(weights), cmap=_RED, alpha=0.85 * strength, extent=(0, 1, 1, 0), vmin=0, vmax=1)
            y, x = ((pixel + 0.5) / size for pixel, size in zip(result.query, result.grid))
            ax.plot(x, y, "+", color="cyan", markersize=10, markeredgewidth=1.5)
            height, width = weights.shape
            ax.set_title(f"{result.layer}\n{height} x {width} keys, largest {weights.max():.2f}", fontsize=8)
        figure.suptitle("What the query (+) attends: the redder, the larger the weight (mean of the heads)")


def _show(ax, shown):
    ax.imshow(shown, cmap="gray", extent=(0, 1, 1, 0), vmin=0, vmax=1)


def _ends_of_sizes(results):
    """The first and the last layer of each size of map, in order."""
    sizes = {}
    for number, result in enumerate(results):
        sizes.setdefault(result.weights.shape[1:], []).append(number)
    return [results[i] for i in sorted({number for numbers in sizes.values() for number in (numbers[0], numbers[-1])})]


def _to_look_at(image, mean, std):
    """Undo the normalisation: (C, S, S) -> (S, S, 3) or (S, S) from 0 to 1."""
    image = image * np.reshape(std, (-1, 1, 1)) + np.reshape(mean, (-1, 1, 1))
    image = np.clip(image, 0, 1)
    return image[0] if len(image) == 1 else image.transpose(1, 2, 0)
