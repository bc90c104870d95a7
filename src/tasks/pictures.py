# SPDX-License-Identifier: Apache-2.0
"""Pictures of answers: a legend beside an image, and files that lie as the images do."""

import os
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from src.data.image_files import shown
from src.errors import UserError
from src.training.atomic import replacing


def with_legend(pixels, named, colours):
    """Return an image with a legend to the right.

    Args:
        pixels (numpy.ndarray): uint8 (h, w, 3).
        named (list): `(class, text)` of each line of the legend.
        colours (numpy.ndarray): uint8 (K, 3).
    """
    height, width = pixels.shape[:2]
    line = line_height(height)
    font = ImageFont.load_default(0.7 * line)
    longest = max((font.getlength(text) for _, text in named), default=0)
    size = width + int(longest) + 3 * line, max(height, (len(named) + 1) * line)
    picture = Image.new("RGB", size, "white")
    picture.paste(Image.fromarray(pixels))
    draw = ImageDraw.Draw(picture)
    for number, (k, text) in enumerate(named):
        left, top = width + line // 2, line // 2 + number * line
        box = left, top + line // 8, left + line, top + line - line // 8
        draw.rectangle(box, tuple(map(int, colours[k])), "black")
        draw.text((left + 1.5 * line, top + line / 2), text, "black", font, "lm")
    return picture


def line_height(height):
    """Return the pixels of a line of text beside an image of this height."""
    return min(max(height // 24, 14), 48)


class Names:
    """Names of pictures, below a folder, of images: FOLDER/a/b.jpg becomes a/b.png.

    Args:
        folder (Path): below which the images lie, or the only one.
        output (Path): of the pictures.
        kind (str): what a picture is, for messages.
    """

    def __init__(self, folder, output, kind):
        self.folder, self.output, self.kind, self._of = Path(folder), output, kind, {}
        if output and output.exists() and not output.is_dir():
            raise UserError(f"--output {output} is no folder; {kind}s take one")

    def of(self, path):
        """Return the name of the picture of an image; `UserError` where that of another image has it."""
        name = relative(path, self.folder).with_suffix(".png")
        other = self._of.setdefault(os.fsencode(name), os.fsencode(path))
        if self.output and other != os.fsencode(path):
            raise UserError(
                f"{shown(other)} and {shown(path)} would have the same {self.kind} {self.output / name}; rename one of "
                "them"
            )
        return name


def relative(path, folder):
    """Return the path of an image below a folder; its name, where that is no folder."""
    return Path(os.path.relpath(path, folder) if Path(folder).is_dir() else Path(path).name)


def save(picture, path):
    """Write a picture as PNG, its folder too; `UserError` where that cannot be made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create folder {path.parent} ({error.strerror}); choose another --output") from error
    with replacing(path) as temporary:
        picture.save(temporary, "PNG")
