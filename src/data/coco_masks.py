# SPDX-License-Identifier: Apache-2.0
"""The masks of a COCO file: polygons and run lengths, kept as bytes, checked, and drawn by pycocotools.

A list of numbers takes several times the room of its bytes, and there are millions of them in COCO.
"""

from array import array
from itertools import chain

import numpy as np
from pycocotools import mask as coco

# What a mask may be; of a broken one the bytes are what is wrong with it.
NONE, POLYGONS, RUNS, TEXT, BROKEN = range(5)


class UnusableMask(Exception):
    """A mask that cannot be drawn: the message goes on after "the mask of NAME" and says what to do."""


def packed(segmentation):
    """Return what `segmentation` of an annotation is, one of `NONE` to `BROKEN`, and its bytes."""
    try:
        if not segmentation or segmentation == [[]]:
            return NONE, b""
        if isinstance(segmentation, list):
            return _packed_polygons(segmentation)
        height, width = segmentation["size"]
        counts = segmentation["counts"]
        if isinstance(counts, str):
            return TEXT, array("q", (height, width)).tobytes() + counts.encode("ascii")
        return RUNS, array("q", (height, width, *counts)).tobytes()
    except (TypeError, ValueError, KeyError, OverflowError):
        return BROKEN, b"is neither polygons, lists of x1, y1, x2, y2, ..., nor run lengths, {counts, size}; mend it"


def _packed_polygons(polygons):
    lengths = [len(polygon) for polygon in polygons]
    for length in lengths:
        if length < 6 or length % 2:
            return BROKEN, b"has a polygon of %d numbers, which takes an even number from 6 on; mend it" % length
    return POLYGONS, array("d", chain((len(polygons),), lengths, *polygons)).tobytes()


def run_lengths(kind, content, size):
    """Return a mask as pycocotools' run lengths, {"size": [H, W], "counts": bytes}.

    Args:
        kind (int), content (bytes): of `packed`, not `NONE`.
        size (tuple): (H, W) of the image, pixels.

    Raises:
        UnusableMask: it is broken, or is of an image of another size.
    """
    if kind == BROKEN:
        raise UnusableMask(bytes(content).decode())
    if kind == POLYGONS:
        return coco.merge(coco.frPyObjects(_polygons(content, size), *size))
    height, width = np.frombuffer(content[:16], np.int64).tolist()
    if (height, width) != tuple(size):
        raise UnusableMask(f"has the size [{height}, {width}] but its image has [{size[0]}, {size[1]}]; mend it")
    if kind == TEXT:
        text = bytes(content[16:])
        counts = _counts(text)
    else:
        counts = np.frombuffer(content[16:], np.int64)
    # pycocotools would write, or read, beyond its memory.
    if not len(counts) or counts.min() < 0 or counts.sum() != height * width:
        raise UnusableMask(
            f"has run lengths of {int(counts.sum())} pixels but its image has {height * width}; mend them"
        )
    if kind == TEXT:
        return {"size": [height, width], "counts": text}
    return coco.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)


def _polygons(content, size):
    numbers = np.frombuffer(content, np.float64)
    count = int(numbers[0])
    ends = 1 + count + np.cumsum(numbers[1 : 1 + count]).astype(int)
    polygons = np.split(numbers[: ends[-1]], [1 + count, *ends[:-1]])[1:]
    least, most = (function(numbers[1 + count :]) for function in (np.min, np.max))
    # Their outlines are walked step by step.
    if not (-10 * max(size) <= least and most <= 10 * max(size)):
        raise UnusableMask(f"has a polygon with numbers from {least:g} to {most:g}, far beyond its image; mend it")
    return [polygon.tolist() for polygon in polygons]


def _counts(text):
    """Return the run lengths, int64 (n,), in pycocotools' text; an empty array where it is none."""
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return np.zeros(0, np.int64)
    # Five bits a letter, the lowest first; the sixth says that there are more.
    is_last = (codes & 32) == 0
    starts = np.flatnonzero(np.concatenate([[True], is_last[:-1]]))
    places = np.arange(len(codes)) - np.repeat(starts, np.diff([*starts, len(codes)]))
    if places.max() > 6:
        return np.zeros(0, np.int64)
    values = np.add.reduceat((codes & 31) << 5 * places, starts)
    # The fifth bit of the last letter is the sign.
    values -= np.where(codes[is_last] & 16, 1 << 5 * (places[is_last] + 1), 0)
    # From the fourth on each is the difference to the last but one.
    for first in (1, 2):
        values[first::2] = np.cumsum(values[first::2])
    return values


def drawn(runs):
    """Return the mask of `run_lengths`, uint8 (H, W), 0 or 1."""
    return coco.decode(runs)
