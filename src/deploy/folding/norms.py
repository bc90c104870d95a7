# SPDX-License-Identifier: Apache-2.0
"""Batch norms go into the convolutions before them: what follows a Cell, scale and shift, becomes part of its weights.

`folded` is told what follows a Cell and returns a Cell that computes both. It has a rule for each kind of Cell, here
those of every network, in `mix.py` those of ACmix. A norm that no convolution comes before, as the first of a
pre-activation block, stays: it is one operator already.
"""

from functools import singledispatch
from typing import NamedTuple

import numpy as np
from mindspore import Tensor, nn

from src.heads.convolution import ConvNormRelu
from src.heads.pixel_classifier import PixelClassifier
from src.models import resnet, san
from src.ops.drop_path import DropPath


class Affine(NamedTuple):
    """scale * y + shift on each channel of a map y: (C,) float64 each, or numbers for all channels."""

    scale: np.ndarray
    shift: np.ndarray


NOTHING = Affine(1.0, 0.0)

# Name of a convolution or an operator: the norm that follows it. In a `SequentialCell` their order tells.
NORM_AFTER = {
    resnet.ImageNetStem: {"conv": "bn"},
    resnet.SmallStem: {"conv": "bn"},
    resnet.Bottleneck: {"conv1": "bn1", "conv2": "bn2", "conv3": "bn3"},
    ConvNormRelu: {"conv": "bn"},
    san.SAN: {"conv_in": "bn_in"},
    san.Bottleneck: {"sam": "bn2"},
}


def of_norm(norm):
    """Return what an `nn.BatchNorm2d` computes in evaluation mode as an `Affine`."""
    gamma, beta, mean, variance = (
        array.asnumpy().astype(np.float64) for array in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
    )
    scale = gamma / np.sqrt(variance + norm.eps)
    return Affine(scale, beta - mean * scale)


@singledispatch
def folded(cell, after=NOTHING):
    """Return a Cell that computes `cell` and `after`, with fewer operators; `cell` may be taken apart for it.

    Any other kind of Cell: its norms go into what they follow, and its children are folded.

    Raises:
        TypeError: a Cell of a kind without a rule that something follows.
    """
    if after is not NOTHING:
        raise TypeError(f"a {type(cell).__name__} cannot take in what follows it")
    norms = NORM_AFTER.get(type(cell), {})
    for name, child in list(cell.name_cells().items()):
        if name in norms:
            setattr(cell, name, folded(child, of_norm(getattr(cell, norms[name]))))
            setattr(cell, norms[name], nn.Identity())
        elif name not in norms.values():
            setattr(cell, name, folded(child))
    return cell


@folded.register
def _(cell: nn.SequentialCell, after=NOTHING):
    parts = []
    for part in cell:
        if isinstance(part, nn.BatchNorm2d) and parts and isinstance(parts[-1], nn.Conv2d):
            parts[-1] = folded(parts[-1], of_norm(part))
        else:
            parts.append(folded(part))
    return nn.SequentialCell(*parts)


@folded.register
def _(cell: nn.Conv2d, after=NOTHING):
    if after is NOTHING:
        return cell
    weight = array(cell.weight) * np.reshape(after.scale, (-1, 1, 1, 1))
    bias = (array(cell.bias) if cell.has_bias else 0) * after.scale + after.shift
    geometry = cell.stride, cell.pad_mode, cell.padding, cell.dilation, cell.group
    return convolution(weight, bias, *geometry, kind=type(cell))


@folded.register
def _(cell: nn.Dense, after=NOTHING):
    if after is not NOTHING:
        cell.weight.set_data(tensor(array(cell.weight) * np.reshape(after.scale, (-1, 1))))
        cell.bias.set_data(tensor(array(cell.bias) * after.scale + after.shift))
    return cell


@folded.register
def _(cell: DropPath, after=NOTHING):
    return nn.Identity()


@folded.register
def _(cell: PixelClassifier, after=NOTHING):
    return folded(cell.linear, after)


def convolution(weight, bias, stride=1, pad_mode="pad", padding=0, dilation=1, group=1, kind=nn.Conv2d):
    """Return the convolution of an (O, I / group, k, k) kernel and an (O,) bias, or None for none."""
    outputs, inputs, *kernel = weight.shape
    numbers = {} if bias is None else {"bias_init": tensor(np.broadcast_to(bias, (outputs,)))}
    return kind(
        inputs * group,
        outputs,
        tuple(kernel),
        stride,
        pad_mode,
        padding,
        dilation,
        group,
        has_bias=bias is not None,
        weight_init=tensor(weight),
        **numbers,
    )


def array(parameter):
    """Return a parameter as float64 numbers."""
    return parameter.asnumpy().astype(np.float64)


def tensor(numbers):
    """Return a float32 `Tensor`."""
    return Tensor(np.ascontiguousarray(numbers, np.float32))
