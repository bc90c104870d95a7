# SPDX-License-Identifier: Apache-2.0
"""The classes of pixels shown: shares by class as text or JSON lines, index PNGs, and overlays with a legend."""

import contextlib
import json
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from src.data.class_colours import palette
from src.errors import UserError
from src.tasks.pictures import Names, save, with_legend

# Below --output, for pictures that are no masks.
OVERLAYS = "overlays"
# Of an overlay: the share of the colour in a pixel.
_OPACITY = 0.6


@contextlib.contextmanager
def open_results(folder, arguments, labels, colours, first):
    """Yield `write(path, answer)`, which takes an image and its `(classes, pixels)`, see `PixelDeployment`.

    The shares go to standard output; with `output`, a folder, the mask of FOLDER/a/b.jpg goes to output/a/b.png, and
    with `overlay` a picture to output/overlays/a/b.png.

    Args:
        folder (Path): below which the images lie, or the only one.
        arguments: output, overlay and json.
        labels (list), colours (numpy.ndarray): of the classes, uint8 (K, 3).
        first (int): the value of class 0 in a mask.

    Raises:
        UserError: overlays have no folder, a file cannot be written, or two images would have the same mask.
    """
    if arguments.overlay and not arguments.output:
        raise UserError("--overlay writes pictures; give a folder for them with --output")
    output = arguments.output and Path(arguments.output)
    names = Names(folder, output, "mask")
    values = palette(256)
    values[first : first + len(labels)] = colours
    # Names of files can be other than text.
    sys.stdout.reconfigure(errors="backslashreplace")

    def write(path, answer):
        classes, pixels = answer
        shares = shares_of(classes, labels)
        name = names.of(path)
        if output:
            mask = Image.fromarray(classes + np.uint8(first))
            mask.putpalette(values.tobytes())
            save(mask, output / name)
        if arguments.overlay:
            named = [(k, f"{labels[k]}  {percent:.2f} %") for k, percent in shares]
            save(overlay(pixels, classes, named, colours), output / OVERLAYS / name)
        if arguments.json:
            areas = [{"label": labels[k], "percent": round(percent, 4)} for k, percent in shares]
            line = json.dumps({"image": str(path), "areas": areas}, ensure_ascii=False)
        else:
            line = "\n".join([str(path), *(f"{percent:9.2f} %  {labels[k]}" for k, percent in shares)])
        print(line, flush=True)

    yield write


def shares_of(classes, labels):
    """Return `[(class, percent of the pixels), ...]` of the classes that occur, the largest first."""
    counts = np.bincount(classes.ravel(), minlength=len(labels))
    order = np.argsort(-counts, kind="stable")
    return [(int(k), float(100 * counts[k] / classes.size)) for k in order if counts[k]]


def overlay(pixels, classes, named, colours):
    """Return an image with the colours of its classes on it, and a legend to the right.

    Args:
        pixels, classes (numpy.ndarray): uint8 (h, w, 3) and (h, w).
        named (list): `(class, text)` of each line of the legend.
        colours (numpy.ndarray): uint8 (K, 3).
    """
    blended = cv2.addWeighted(pixels, 1 - _OPACITY, colours[classes], _OPACITY, 0)
    return with_legend(blended, named, colours)
