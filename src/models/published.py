# SPDX-License-Identifier: Apache-2.0
"""How the published PyTorch code names and cuts our parameters, both ways.

A family keeps its rules beside its model, as `PUBLISHED`: pairs for `re.sub`, applied in order to the name of a
parameter. What comes out names the published tensors that make it:

    a             is our parameter
    a|b|c         are stacked along the first axis
    a|b|c*4       likewise, c four times as long as each of the others
    a:linear      is the matrix (O, I) of a linear layer where ours is a 1x1 convolution (O, I, 1, 1)
    a:conv1x1     is a 1x1 convolution where ours is a linear layer
"""

import re
from typing import NamedTuple

import numpy as np

_PART = re.compile(r"(?P<name>[^*:]+)(?:\*(?P<share>\d+))?(?::(?P<kind>linear|conv1x1))?")


class Part(NamedTuple):
    """A published tensor: its name and shape, and which rows of our parameter it holds."""

    name: str
    shape: tuple
    rows: slice


def published_names(name, rules):
    """Return the names of the published tensors that, stacked along the first axis, make our parameter `name`."""
    return [match["name"] for match in _matches(name, rules)]


def published_parts(name, shape, rules):
    """Return the list of `Part` that our parameter `name` of this shape is stacked of."""
    matches = _matches(name, rules)
    shares = [int(match["share"] or 1) for match in matches]
    unit, start, parts = shape[0] // sum(shares), 0, []
    for match, share in zip(matches, shares):
        rest = {None: shape[1:], "linear": shape[1:2], "conv1x1": (*shape[1:], 1, 1)}[match["kind"]]
        parts.append(Part(match["name"], (share * unit, *rest), slice(start, start + share * unit)))
        start += share * unit
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
        name: np.concatenate([tensors[part.name] for part in parts[name]]).reshape(shape).astype(np.float32)
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
    return {
        part.name: value[part.rows].reshape(part.shape)
        for name, value in values.items()
        for part in published_parts(name, value.shape, rules)
    }


def _matches(name, rules):
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return [_PART.fullmatch(part) for part in name.split("|")]


def _first(names, shown=3):
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")
