# SPDX-License-Identifier: Apache-2.0
"""What a query attends: the attention weights of one place of the image, in every layer and head.

Whatever the form of attention, its output is linear in the values while query and key stay as they are. So the gradient
of one output channel of a head with respect to the values is that head's row of weights, reflected pixels, clipped
windows and rolled maps included, and no form needs code of its own that repeats its geometry.
"""

from contextlib import contextmanager
from typing import NamedTuple

import mindspore as ms
import numpy as np
from mindspore import nn

from src.errors import UserError
from src.ops.acmix import Mix
from src.ops.patchwise_attention import PatchwiseAttention
from src.ops.sliding_window import SlidingWindowAttention
from src.ops.spatial_reduction_attention import GlobalAttention
from src.ops.window_attention import WindowAttention


class Attended(NamedTuple):
    """The weights of one query in one layer.

    Attributes:
        layer: name of the Cell.
        weights: float32 (N, h, w), a map over the keys for each head.
        query: (y, x), the pixel of the query, where `grid` has pixels.
        grid: (height, width) of the map of queries, over the same image.
    """

    layer: str
    weights: np.ndarray
    query: tuple[int, int]
    grid: tuple[int, int]


def attended(network, image, place):
    """Return what the query at a place of an image attends, in each layer with attention.

    Runs outside graph mode, where MindSpore lets the input of an inner Cell be seen.

    Args:
        network (nn.Cell): a backbone of the registry.
        image (np.ndarray): float32 (C, S, S), normalised.
        place (tuple): (y, x) in the image, each from 0 (top, left) to 1.

    Returns:
        list of Attended, in the order of the layers.

    Raises:
        UserError: the network has no attention.
    """
    layers = [(name, cell) for name, cell in network.cells_and_names() if isinstance(cell, Mix) and cell.has_attention]
    if not layers:
        raise UserError("this network has no attention to show; give a checkpoint of another model")
    network.set_train(False)
    with _outside_graphs():
        seen = _inputs(network, ms.Tensor(image[None]), [part for _, cell in layers for part in (cell, cell.attention)])
        return [
            Attended(name, *_FORMS[type(cell.attention)](cell, seen[cell], seen[cell.attention], place))
            for name, cell in layers
        ]


@contextmanager
def _outside_graphs():
    mode = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        yield
    finally:
        ms.set_context(mode=mode)


def _inputs(network, image, cells):
    """Run the network and return the input of each Cell."""
    seen = {}

    def remember(cell, inputs):
        seen[cell] = inputs[0]

    handles = [cell.register_forward_pre_hook(remember) for cell in cells]
    try:
        network(image)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def _pixel(place, grid):
    """The pixel of a map at a place of the image."""
    return tuple(min(int(at * size), size - 1) for at, size in zip(place, grid))


def _gradient(attend, values, ones):
    """Return the gradient of the sum of the outputs `ones` (an index of attend(values)) with respect to `values`."""
    cotangent = np.zeros(attend(values).shape, np.float32)
    cotangent[ones] = 1
    cotangent = ms.Tensor(cotangent)
    return ms.grad(lambda x: (attend(x) * cotangent).sum())(values).asnumpy()[0]


@contextmanager
def _without(cell, projection):
    """Give back the heads as they are: the output projection, which mixes them, is passed over."""
    kept = getattr(cell, projection)
    setattr(cell, projection, nn.Identity())
    try:
        yield
    finally:
        setattr(cell, projection, kept)


def _sliding_window(cell, x, qkv, place):
    attention = cell.attention
    height, width = qkv.shape[2:]
    grid = -(-height // attention.stride), -(-width // attention.stride)
    y, x = _pixel(place, grid)
    # The weights of a head are the same for all its channels.
    channels = np.arange(0, attention.channels, attention.head_channels)
    return _gradient(attention, qkv, (0, channels, y, x))[2 * attention.channels + channels], (y, x), grid


def _patchwise(cell, x, qkv, place):
    attention, grid = cell.attention, qkv.shape[2:]
    y, x = _pixel(place, grid)
    channels = np.arange(attention.weights)
    return _gradient(attention, qkv, (0, channels, y, x))[2 * attention.query_channels + channels], (y, x), grid


def _window(cell, x, qkv, place):
    attention, grid = cell.attention, x.shape[1:3]
    y, x = _pixel(place, grid)
    shift, rolled = attention.cyclic_shift, qkv.shape[2:]
    channels = np.arange(0, attention.channels, attention.head_channels)
    place = (0, channels, (y - shift) % rolled[0], (x - shift) % rolled[1])
    with _without(attention, "project"):
        weights = _gradient(attention, qkv, place)[2 * attention.channels + channels]
    weights = np.roll(weights, (shift, shift), (1, 2))
    return weights[:, : grid[0], : grid[1]], (y, x), grid


def _global(cell, x, projected, place):
    attention, reduction = cell.attention, cell.qkv.reduction
    query, key_value, grid = projected
    y, x = _pixel(place, grid)
    before = query.shape[3] - grid[0] * grid[1]
    channels = np.arange(0, query.shape[1], attention.head_channels)
    with _without(attention, "projection"):
        place = (0, channels, 0, before + y * grid[1] + x)
        weights = _gradient(lambda values: attention((query, values, grid)), key_value, place)
    weights = weights[query.shape[1] + channels, 0]
    # Of a class token only the image is shown.
    return weights[:, before:].reshape(-1, grid[0] // reduction, grid[1] // reduction), (y, x), grid


_FORMS = {
    SlidingWindowAttention: _sliding_window,
    PatchwiseAttention: _patchwise,
    WindowAttention: _window,
    GlobalAttention: _global,
}
