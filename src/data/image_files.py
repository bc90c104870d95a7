# SPDX-License-Identifier: Apache-2.0
"""What counts as an image, by name and by content, and how one becomes pixels: one rule for all that reads images."""

import io
import os
import warnings
from pathlib import Path

from PIL import Image, ImageOps

from src.errors import UserError

ENDINGS = (".jpeg", ".jpg", ".jpe", ".jfif", ".png", ".bmp", ".webp")
# Endings of images that are not taken: a folder with some of them is told so.
OTHER_ENDINGS = (
    *(".tif", ".tiff", ".gif", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".ppm", ".pgm", ".pnm", ".tga", ".svg"),
    *(".psd", ".exr", ".dcm", ".dng", ".cr2", ".nef", ".arw", ".raw"),
)
# What systems leave in folders beside what people put there.
_LITTER = ("__MACOSX", "Thumbs.db", "desktop.ini", "@eaDir", "lost+found", "$RECYCLE.BIN")
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
_PNG, _DEPTH = b"\x89PNG\r\n\x1a\n", 24  # where a PNG file says how many bits a channel has
_ORIENTATION = 0x0112  # EXIF: 1 as it lies, 2 to 8 turned or mirrored

# What an image may have: 0.3 GB of them in colour. A file of kilobytes can claim a thousand times as many.
MOST_PIXELS = 100_000_000
# Of many pixels, which we refuse, and of tags that nothing here reads.
warnings.filterwarnings("ignore", module="PIL")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class UnusableImage(Exception):
    """An image that cannot be used: the message goes on after "image NAME" and says what to do."""


def is_hidden(name):
    """Whether a file or folder is to be passed over: a hidden one, as macOS's `._x.jpg`, or litter of a system."""
    return name.startswith(".") or name in _LITTER


def is_image(name):
    """Whether a file of this name is taken for an image."""
    return os.path.splitext(name)[1].lower() in ENDINGS and not is_hidden(name)


def count_others(names):
    """Return how many of `names` are images that are not taken, by ending, as a dict."""
    counts = {}
    for name in names:
        ending = os.path.splitext(name)[1].lower()
        if ending in OTHER_ENDINGS and not is_hidden(name):
            counts[ending] = counts.get(ending, 0) + 1
    return counts


def describe_others(folder, counts):
    """Return the line on what `count_others` counted in `folder`; "" where that is nothing."""
    if not counts:
        return ""
    kinds = ", ".join(f"{count} {ending}" for ending, count in sorted(counts.items()))
    return f"{folder}: passed over {sum(counts.values())} images that are not JPEG, PNG, BMP or WebP ({kinds})"


def shown(path):
    """Return a path as text for messages: bytes that are no UTF-8 are written out."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def check_utf8(path):
    """Return a `Path` for MindSpore's own readers; `UserError` where it is no UTF-8, which they do not take."""
    if shown(path).encode() != os.fsencode(path):
        raise UserError(f"{shown(path)} is no UTF-8, which MindSpore's reader of such files needs; rename the folder")
    return Path(path)


def read_file(path):
    """Return the bytes of an image file; `UserError` naming it if it cannot be read."""
    try:
        # A pipe would be waited for without an end.
        if os.path.exists(path) and not os.path.isfile(path):
            raise UserError(f"image {shown(path)} is no file, or a folder that cannot be listed; mend or remove it")
        # Pixels of four bytes, as BMP files have them, and a header.
        if os.path.getsize(path) > 4 * MOST_PIXELS + 1_000_000:
            raise UserError(
                f"image {shown(path)} has more than {4 * MOST_PIXELS + 1_000_000} bytes; replace or remove it"
            )
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UserError(f"cannot read image {shown(path)}: {error.strerror}") from error


def decode(content, orientation="ignore"):
    """Return the image in the bytes of a file, and whether it lies otherwise than its EXIF tag wants it.

    Alpha is dropped, and of several pictures the first is taken.

    Args:
        content (bytes): of a JPEG, PNG, BMP or WebP file, whatever its name.
        orientation (str): "ignore" leaves the pixels as they lie in the file, as published evaluations do; "apply"
            turns them as the EXIF tag says.

    Returns:
        tuple: `PIL.Image.Image` of mode "RGB", and a bool.

    Raises:
        UnusableImage: the content is damaged or something else, too large, or has 16 bits a channel.
    """
    if not content:
        raise UnusableImage("is empty; replace or remove it")
    if content.startswith(_PNG) and content[_DEPTH : _DEPTH + 1] == b"\x10":
        raise UnusableImage("has 16 bits a channel, of which 8 would be lost; convert it to 8 bits by its own range")
    try:
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
    except Image.DecompressionBombError:
        raise UnusableImage(f"has more than {MOST_PIXELS} pixels; replace or remove it") from None
    except Exception as error:  # a damaged or hostile file can raise anything
        is_one = content.startswith((b"\xff\xd8\xff", _PNG, b"BM")) or content[8:12] == b"WEBP"
        what = "is truncated or damaged; " if is_one else "is not a JPEG, PNG, BMP or WebP image; convert, "
        raise UnusableImage(f"{what}replace or remove it") from error
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise UnusableImage(f"has {width} x {height} pixels, more than {MOST_PIXELS}; replace or remove it")
    try:
        image.load()
        is_turned = image.getexif().get(_ORIENTATION, 1) in range(2, 9)
        if is_turned and orientation == "apply":
            image, is_turned = ImageOps.exif_transpose(image), False
        # Not always: it would copy the pixels.
        return image if image.mode == "RGB" else image.convert("RGB"), is_turned
    except Exception as error:  # as above
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnusableImage(f"is truncated or damaged ({reason}); replace or remove it") from error


def decode_file(path, content, orientation="ignore"):
    """Return what `decode` returns of the content of an image file; `UserError` naming it where it cannot be used."""
    try:
        return decode(content, orientation)
    except UnusableImage as error:
        raise UserError(f"image {shown(path)} {error}") from error
