# SPDX-License-Identifier: Apache-2.0
"""What was found on images shown: text, JSON lines, a file of results as COCO has them, and pictures with a legend."""

import contextlib
import json
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from src.data.class_colours import palette
from src.data.image_files import decode_file, read_file
from src.errors import UserError
from src.tasks.found import coco_results
from src.tasks.pictures import Names, line_height, relative, save, with_legend
from src.training.atomic import replacing

# Least score of what is shown, where nobody says.
THRESHOLD = 0.3
# Of a mask in a picture: the share of the colour in a pixel.
_OPACITY = 0.5


@contextlib.contextmanager
def open_results(folder, arguments, labels, ids, orientation):
    """Yield `write(path, answer)`, which takes an image and what was `Found` on it.

    It goes to standard output; with `output`, FILE.json, also into that, all images in one list as COCO's tools read
    it; with another `output`, a folder, the picture of FOLDER/a/b.jpg goes to output/a/b.png.

    Args:
        folder (Path): below which the images lie, or the only one.
        arguments: output, threshold and json.
        labels (list), ids (list): of the classes.
        orientation (str): of `src.data.image_files.decode`.

    Raises:
        UserError: a file cannot be written, or two images would have the same picture.
    """
    least = THRESHOLD if arguments.threshold is None else arguments.threshold
    output, colours = arguments.output and Path(arguments.output), palette(len(labels) + 1)[1:]
    # Names of files can be other than text.
    sys.stdout.reconfigure(errors="backslashreplace")
    with contextlib.ExitStack() as files:
        results, names = None, None
        if output and output.suffix == ".json":
            results = files.enter_context(_ListFile(output))
        elif output:
            names = Names(folder, output, "picture")

        def write(path, answer):
            found = answer.only(answer.scores >= least)
            kinds = ("bbox",) if found.masks is None else ("bbox", "segm")
            of_kinds = coco_results(found, image_id(path, folder), ids, kinds).values()
            entries = [{key: value for one in same for key, value in one.items()} for same in zip(*of_kinds)]
            if results:
                results.add(entries)
            if names:
                pixels = np.asarray(decode_file(path, read_file(path), orientation)[0])
                save(picture(pixels, found, labels, colours), output / names.of(path))
            print(_line(path, found, entries, labels, arguments.json), flush=True)

        yield write


def _line(path, found, entries, labels, as_json):
    named = [labels[label] for label in found.labels]
    if as_json:
        entries = [{"label": label, **entry} for label, entry in zip(named, entries)]
        return json.dumps({"image": str(path), "results": entries}, ensure_ascii=False)
    return "\n".join(
        [
            str(path),
            *(
                f"{100 * entry['score']:9.2f} %  {label}  {' '.join(f'{side:.1f}' for side in entry['bbox'])}"
                for label, entry in zip(named, entries)
            ),
        ]
    )


def image_id(path, folder):
    """Return the id of an image: the number that its name is, as COCO has it, else its path below `folder`."""
    name = relative(path, folder)
    return int(name.stem) if name.stem.isdecimal() and name.stem.isascii() else str(name)


def picture(pixels, found, labels, colours):
    """Return an image with boxes, and masks, of what was found on it, and a legend to the right.

    Args:
        pixels (numpy.ndarray): uint8 (h, w, 3).
        found (Found): of it.
        labels (list), colours (numpy.ndarray): of the classes, uint8 (K, 3).
    """
    pixels = pixels.copy()
    if found.masks is not None:
        # The best comes last, on top.
        for number in reversed(range(len(found.labels))):
            is_there = found.mask(number).astype(bool)
            colour = np.full((1, is_there.sum(), 3), colours[found.labels[number]])
            if colour.size:
                pixels[is_there] = cv2.addWeighted(pixels[is_there][None], 1 - _OPACITY, colour, _OPACITY, 0)[0]
    image = Image.fromarray(pixels)
    draw, line = ImageDraw.Draw(image), line_height(pixels.shape[0])
    font = ImageFont.load_default(0.6 * line)
    for number in reversed(range(len(found.labels))):
        (x1, y1, x2, y2), label = found.boxes[number].tolist(), found.labels[number]
        colour = tuple(map(int, colours[label]))
        draw.rectangle((x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)), None, colour, max(1, line // 10))
        text = f"{100 * found.scores[number]:.0f}"
        top = max(y1 - 0.7 * line, 0)
        draw.rectangle((x1, top, x1 + font.getlength(text) + 2, top + 0.7 * line), colour)
        ink = "black" if np.dot(colours[label], (0.299, 0.587, 0.114)) > 127 else "white"
        draw.text((x1 + 1, top + 0.35 * line), text, ink, font, "lm")
    counts = np.bincount(found.labels, minlength=len(labels))
    named = [(int(k), f"{labels[k]}  {counts[k]}") for k in np.argsort(-counts, kind="stable") if counts[k]]
    return with_legend(np.asarray(image), named, colours)


class _ListFile:
    """A JSON file of one list, which grows; it has its name when all is in it."""

    def __init__(self, path):
        self.path, self.files, self.before = path, contextlib.ExitStack(), "["

    def __enter__(self):
        if not self.path.resolve().parent.is_dir():
            raise UserError(f"--output {self.path} takes a .json file in a folder that exists, or a folder")
        temporary = self.files.enter_context(replacing(self.path))
        self.file = self.files.enter_context(open(temporary, "w", encoding="utf-8"))
        return self

    def add(self, entries):
        for entry in entries:
            self.file.write(self.before + json.dumps(entry, ensure_ascii=False))
            self.before = ",\n"

    def __exit__(self, *error):
        if error[0] is None:
            self.file.write("[]\n" if self.before == "[" else "]\n")
        return self.files.__exit__(*error)
