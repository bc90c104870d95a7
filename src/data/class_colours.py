# SPDX-License-Identifier: Apache-2.0
"""Names and colours of classes of pixels: those of a file, and a palette where it has no colours."""

import re
from pathlib import Path

import numpy as np

from src.errors import UserError

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")
_EXAMPLE = "sky<tab>#4682b4"


def read_classes(path, classes):
    """Return the names of classes, by their numbers, and their colours, None for those that have none.

    A line is a name, or a name, a tab and a colour: "#rrggbb".

    Args:
        classes (int): how many there are.

    Raises:
        UserError: the file cannot be read, has not one line for each class, or a colour that is none.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path} ({error}); it has the name of a class on each line") from error
    names, colours = [], []
    for number, line in enumerate(lines, 1):
        name, *colour = (part.strip() for part in line.split("\t", 1))
        if colour and not is_colour(*colour):
            raise UserError(f"{path}, line {number}: '{colour[0]}' is no colour; it takes a line as {_EXAMPLE}")
        names.append(name)
        colours.append(colour[0] if colour else None)
    if len(names) != classes or not all(names):
        raise UserError(f"{path} has {len(names)} lines but takes a name for each of the {classes} classes")
    return names, colours


def is_colour(text):
    """Whether it is one as "#4682b4"."""
    return isinstance(text, str) and _COLOUR.fullmatch(text) is not None


def palette(count):
    """Return uint8 (count, 3): the colour of each number, black that of 0, as PASCAL VOC has them; 256 differ."""
    numbers, colours = np.arange(count), np.zeros((count, 3), int)
    # The bits of a number by turns, the lowest ones as the highest bits of red, green and blue.
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (numbers >> 3 * bit + channel & 1) << 7 - bit
    return colours.astype(np.uint8)


def to_text(colour):
    """Return [r, g, b] as "#rrggbb"."""
    return "#" + "".join(f"{part:02x}" for part in colour)


def from_text(colour):
    """Return "#rrggbb" as [r, g, b]."""
    return list(bytes.fromhex(colour[1:]))
