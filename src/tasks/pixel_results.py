# SPDX-License-Identifier: Apache-2.0
"""The classes of pixels shown: shares by class as text or JSON lines, index PNGs, and overlays with a legend."""

import contextlib
import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from src.data.class_colours import palette
from src.data.image_files import shown
from src.errors import UserError
from src.training.atomic import replacing

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
    output, of_mask = arguments.output and Path(arguments.output), {}
    if output and output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is no folder; masks take one")
    values = palette(256)
    values[first : first + len(labels)] = colours
    # Names of files can be other than text.
    sys.stdout.reconfigure(errors="backslashreplace")

    def write(path, answer):
        classes, pixels = answer
        shares = shares_of(classes, labels)
        name = Path(os.path.relpath(path, folder) if Path(folder).is_dir() else Path(path).name).with_suffix(".png")
        if output:
            other = of_mask.setdefault(os.fsencode(name), os.fsencode(path))
            if other != os.fsencode(path):
                raise UserError(
                    f"{shown(other)} and {shown(path)} would have the same mask {output / name}; rename one of them"
                )
            mask = Image.fromarray(classes + np.uint8(first))
            mask.putpalette(values.tobytes())
            _save(mask, output / name)
        if arguments.overlay:
            named = [(k, f"{labels[k]}  {percent:.2f} %") for k, percent in shares]
            _save(overlay(pixels, classes, named, colours), output / OVERLAYS / name)
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
    height, width = classes.shape
    line = min(max(height // 24, 14), 48)
    font = ImageFont.load_default(0.7 * line)
    longest = max(font.getlength(text) for _, text in named)
    size = width + int(longest) + 3 * line, max(height, (len(named) + 1) * line)
    picture = Image.new("RGB", size, "white")
    picture.paste(Image.fromarray(blended))
    draw = ImageDraw.Draw(picture)
    for number, (k, text) in enumerate(named):
        left, top = width + line // 2, line // 2 + number * line
        box = left, top + line // 8, left + line, top + line - line // 8
        draw.rectangle(box, tuple(map(int, colours[k])), "black")
        draw.text((left + 1.5 * line, top + line / 2), text, "black", font, "lm")
    return picture


def _save(picture, path):
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create folder {path.parent} ({error.strerror}); choose another --output") from error
    with replacing(path) as temporary:
        picture.save(temporary, "PNG")
