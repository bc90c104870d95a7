# SPDX-License-Identifier: Apache-2.0
"""Image files that cannot be read: MindSpore's report of several lines becomes one that names the file and the mend."""

import contextlib
import io
import re
from pathlib import Path

from PIL import Image

from src.errors import UserError

_JPEG = b"\xff\xd8\xff"
_PIXELS, _END = b"\xff\xda", b"\xff\xd9"
_SIGNATURES = (_JPEG, b"\x89PNG", b"BM")
_FILE = re.compile(
    r"(?:data file is|Failed to open file|Invalid file found): (.+?\.(?:jpe?g|png|bmp))(?:[.,] |\s*$)", re.I | re.M
)
_REASON = re.compile(r"\[ERROR\] (?:map operation: .+? failed\. )?(.*)")
_COPY = re.compile(r"\W*(?:and )?dump the (?:abnormal )?image to \[\./([\w.]+)\]", re.I)


@contextlib.contextmanager
def readable_errors(name=None, content=None):
    """Turn MindSpore's error about an image file into a `UserError` that names the file.

    A truncated JPEG, PNG or BMP, a text file named .jpg, an empty or vanished file. Other errors pass unchanged.
    MindSpore refuses a truncated JPEG where its pixels end: a random crop from the part that is there still passes.

    Args:
        name: of the file being read, where MindSpore cannot know it (steps called outside a data set).
        content: the bytes of that file.
    """
    # MindSpore lets pass a JPEG that lacks little, and dies of one that lacks all its pixels or has broken tables.
    if content and content.startswith(_JPEG) and (flaw := _flaw_of_jpeg(content)):
        raise UserError(f"image {name} is truncated or damaged ({flaw}); replace or remove it")
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        named = _FILE.search(text)
        file = name or (named and named.group(1))
        if file is None:
            raise
        if copy := _COPY.search(text):
            # MindSpore has left it in the working folder.
            Path(copy.group(1)).unlink(missing_ok=True)
        gone = [folder for folder in Path(file).parents if content is None and not folder.exists()]
        if gone:
            raise UserError(
                f"data folder {gone[-1]} is gone (reading {file}); bring it back and go on with --resume auto"
            ) from error
        raise UserError(f"image {file} {_damage(file, content, text)}; replace or remove it") from error


def _flaw_of_jpeg(content):
    if _END not in content.partition(_PIXELS)[2]:
        return "it has no end"
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            # An eighth of the width and height, the least that the format has: to look at all of it without its cost.
            image.draft(None, (1, 1))
            image.load()
    except Exception as error:  # a damaged or hostile file can raise anything
        return str(error) or type(error).__name__
    return None


def _damage(file, content, text):
    try:
        content = Path(file).read_bytes() if content is None else content
    except OSError as error:
        return f"cannot be opened ({error.strerror})"
    if not content:
        return "is empty"
    if not content.startswith(_SIGNATURES):
        return "is not a JPEG, PNG or BMP image"
    reason = _COPY.split(_REASON.search(text).group(1))[0].partition(f"{file}. ")
    return f"is truncated or damaged ({(reason[2] or reason[0]).strip(' .')})"
