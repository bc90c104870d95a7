# SPDX-License-Identifier: Apache-2.0
"""How the published PyTorch code names and cuts our parameters, both ways.

A family keeps its rules beside its model, as `PUBLISHED`: pairs for `re.sub`, applied in order to the name of a
parameter. What comes out names the published tensors that make it:

    a             is our parameter
    a|b|c         are stacked along the first axis
    a|b|c*4       likewise, c four times as long as each of the others
    a[1:3/3]      is the last two of three equal parts of a, along its first axis
    a:linear      is the matrix (O, I) of a linear layer where ours is a 1x1 convolution (O, I, 1, 1)
    a:conv1x1     is a 1x1 convolution where ours is a linear layer
    a:unfolded    has its last axis, of 2x2 pixels of C channels, in the order channel, row, column; ours column, row,
                  channel
"""

import re
from typing import NamedTuple

import numpy as np

_PART = re.compile(
    r"(?P<name>[^*:[]+)(?:\*(?P<share>\d+))?(?:\[(?P<first>\d):(?P<end>\d)/(?P<of>\d)\])?"
    r"(?::(?P<kind>linear|conv1x1|unfolded))?"
)

# How PyTorch calls what the layer norms hold, here in Cells named norm, norm1, ...
LAYER_NORMS = (
    (r"((?:^|\.)norm\d?\.)gamma(?=$|:)", r"\1weight"),
    (r"((?:^|\.)norm\d?\.)beta(?=$|:)", r"\1bias"),
)


class Part(NamedTuple):
    """A published tensor: its name and shape, which rows of it our parameter takes, and which of ours they are."""

    name: str
    shape: tuple
    taken: slice
    rows: slice
    is_unfolded: bool

    def ours(self, tensor):
        """Return the rows that our parameter takes of a published tensor, in our order."""
        tensor = tensor[self.taken]
        if not self.is_unfolded:
            return tensor
        pixels = tensor.reshape(*tensor.shape[:-1], -1, 2, 2)
        return np.moveaxis(pixels, -3, -1).swapaxes(-3, -2).reshape(tensor.shape)

    def theirs(self, value):
        """Return the rows that our parameter gives to the published tensor, in its order."""
        value = value[self.rows]
        if not self.is_unfolded:
            return value.reshape(-1, *self.shape[1:])
        pixels = value.reshape(*value.shape[:-1], 2, 2, -1)
        return np.moveaxis(pixels.swapaxes(-3, -2), -1, -3).reshape(value.shape)


def under(ours, rules, theirs=""):
    """Return a rule that applies `rules` to what follows `ours` in a name, and puts `theirs` before what comes out."""

    def rename(match):
        return "|".join(theirs + part for part in _renamed(match[1], rules).split("|"))

    return rf"^{re.escape(ours)}(.*)$", rename


def published_names(name, rules):
    """Return the names of the published tensors that, stacked along the first axis, make our parameter `name`."""
    return [match["name"] for match in _matches(name, rules)]


def published_parts(name, shape, rules):
    """Return the list of `Part` that our parameter `name` of this shape is stacked of."""
    matches = _matches(name, rules)
    shares = [int(match["share"] or 1) for match in matches]
    unit, start, parts = shape[0] // sum(shares), 0, []
    for match, share in zip(matches, shares):
        rest = {"linear": shape[1:2], "conv1x1": (*shape[1:], 1, 1)}.get(match["kind"], shape[1:])
        first, end, of = (int(match[key] or default) for key, default in (("first", 0), ("end", 1), ("of", 1)))
        rows = share * unit
        piece = rows // (end - first)
        taken, own = slice(first * piece, end * piece), slice(start, start + rows)
        parts.append(Part(match["name"], (of * piece, *rest), taken, own, match["kind"] == "unfolded"))
        start += rows
    return parts


def from_published(shapes, tensors, rules):
    """Make all our parameters of the published tensors; each of these has to be there, of its shape, and used.

    Args:
        shapes (dict): our parameter name -> shape.
        tensors (dict): published name -> array of floating-point numbers.
        rules: those of the family.

    Returns:
        dict: our parameter name -> float32 array of our shape.

    Raises:
        ValueError: tensors are missing, left over, or of another shape or kind; names the first of each.
    """
    parts = {name: published_parts(name, shape, rules) for name, shape in shapes.items()}
    expected = {part.name: part.shape for stack in parts.values() for part in stack}
    wrong = {
        "missing": [name for name in expected if name not in tensors],
        "left over": [name for name in tensors if name not in expected],
        "different": [
            f"{name} (file {tensor.dtype} {tensor.shape}, model {expected[name]})"
            for name, tensor in tensors.items()
            if name in expected and (tensor.shape != expected[name] or tensor.dtype.kind != "f")
        ],
    }
    if any(wrong.values()):
        raise ValueError("; ".join(f"{len(names)} {kind}: {_first(names)}" for kind, names in wrong.items() if names))
    return {
        name: np.concatenate([part.ours(tensors[part.name]) for part in parts[name]]).reshape(shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def to_published(values, rules):
    """Cut all our parameters into the published tensors: the inverse of `from_published`.

    Args:
        values (dict): our parameter name -> array.
        rules: those of the family.

    Returns:
        dict: published name -> array.
    """
    tensors = {}
    for name, value in values.items():
        for part in published_parts(name, value.shape, rules):
            tensor = tensors.setdefault(part.name, np.empty(part.shape, value.dtype))
            tensor[part.taken] = part.theirs(value)
    return tensors


def _renamed(name, rules):
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _matches(name, rules):
    return [_PART.fullmatch(part) for part in _renamed(name, rules).split("|")]


def _first(names, shown=3):
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")
