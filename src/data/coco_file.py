# SPDX-License-Identifier: Apache-2.0
"""COCO's JSON files, read into arrays: images, boxes and categories, and what is wrong with them.

Each object of the file is taken apart as soon as it is parsed: a million annotations as Python's dicts would take
gigabytes.
"""

import dataclasses
import json
import math
import struct
from pathlib import Path

import numpy as np

from src.data.coco_masks import NONE, packed
from src.data.image_files import MOST_PIXELS, shown
from src.errors import UserError

_ROW = np.dtype(
    [
        *(("id", "<i8"), ("image", "<i8"), ("category", "<i8"), ("box", "<f8", 4), ("area", "<f8")),
        *(("is_crowd", "?"), ("is_ignored", "?"), ("mask", "u1"), ("mask_end", "<i8")),
    ]
)
_PACK = struct.Struct("<qqq5d??Bq").pack
_EXAMPLE = "{id, image_id, category_id, bbox: [x, y, width, height]}"


@dataclasses.dataclass(frozen=True)
class CocoFile:
    """What a file says of N images, A annotations and K categories.

    Attributes:
        path (Path): of the file.
        image_ids: int64 (N,); names: bytes (N,), of the image files; sizes: int32 (N, 2), H and W, pixels; all in the
            order of the file.
        category_ids: int64 (K,), ascending; category_names (list): theirs.
        rows: structured (A,), annotations, those of an image one after another in the order of the file: id, image,
            its position among the images, category, that among the categories, box, float64 (4,), x, y, width and
            height, area, NaN where there is none, is_crowd, is_ignored, mask, its kind in `coco_masks`.
        mask_places: int64 (A, 2), where the mask of each begins and ends in `mask_bytes`.
        mask_bytes (bytes-like): of all masks; empty where they were not asked for.
        problems (list): a line for each thing that is wrong, what it is about left out of the rest.
    """

    path: Path
    image_ids: np.ndarray
    names: np.ndarray
    sizes: np.ndarray
    category_ids: np.ndarray
    category_names: list[str]
    rows: np.ndarray
    mask_places: np.ndarray
    mask_bytes: bytearray
    problems: list[str]

    def refuse_problems(self):
        """Raise `UserError` with the first problem, if there is one."""
        if self.problems:
            more = len(self.problems) - 1
            raise UserError(self.problems[0] + (f" ({more} more: --check_data names them)" if more else ""))

    def mask(self, row):
        """Return kind and bytes of a mask by the position of its row, as `coco_masks.packed` does."""
        first, last = self.mask_places[row]
        return int(self.rows["mask"][row]), self.mask_bytes[first:last]

    def named(self, row):
        """Return what a row is called in messages."""
        return _named(self.rows["id"][row], self.image_ids[self.rows["image"][row]])


def read_coco(path, with_masks=False):
    """Read the file of a data set, or of some images without annotations.

    Args:
        with_masks (bool): whether masks are kept too.

    Returns:
        CocoFile.

    Raises:
        UserError: the file cannot be read, is no JSON, or has no lists of images and categories.
    """
    path = Path(path)
    taken = _Taken(with_masks)
    try:
        content = json.loads(path.read_bytes(), object_hook=taken)
    except OSError as error:
        raise UserError(
            f"cannot read {shown(path)} ({error.strerror}); section detection names the annotation files in --data_dir"
        ) from error
    except json.JSONDecodeError as error:
        where = f"{error.msg}, line {error.lineno}, column {error.colno}"
        raise UserError(f"{shown(path)} is no JSON, or truncated ({where}); mend or replace it") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{shown(path)} is no JSON ({error}); mend or replace it") from error
    lists = {}
    for name in ("images", "categories", "annotations"):
        # Files of images to test on have none of the last.
        lists[name] = content.get(name, [] if name == "annotations" else None) if isinstance(content, dict) else None
        if not isinstance(lists[name], list):
            raise UserError(
                f"{shown(path)} has no list '{name}'; it takes a COCO file of images, annotations, categories"
            )
    problems = []
    images = _images(lists["images"], problems)
    categories = _categories(lists["categories"], problems)
    rows, places = _rows(taken, lists["annotations"], images, categories, problems)
    problems = [f"{shown(path)}: {problem}" for problem in problems]
    return CocoFile(path, *images, *categories, rows, places, taken.masks, problems)


class _Row(int):
    """The number of a row, which no number in a file is."""

    __slots__ = ()


class _Taken:
    """What is left of each object of a file: of an image a tuple, of an annotation its number among the rows.

    An object that is not what it should be stays as it is.
    """

    def __init__(self, with_masks):
        self.with_masks, self.rows, self.masks, self.count = with_masks, bytearray(), bytearray(), 0

    def __call__(self, record):
        if "bbox" in record or "category_id" in record:
            return self.annotation(record)
        if "file_name" in record:
            return tuple(map(record.get, ("id", "file_name", "height", "width")))
        return record

    def annotation(self, record):
        kind, content = packed(record.get("segmentation")) if self.with_masks else (NONE, b"")
        area, flags = record.get("area"), [record.get(name) or 0 for name in ("iscrowd", "ignore")]
        # "0" would be true.
        if any(flag not in (0, 1) for flag in flags):
            return record
        try:
            self.rows += _PACK(
                *(record["id"], record["image_id"], record["category_id"], *record["bbox"]),
                *(math.nan if area is None else area, *flags, kind, len(self.masks) + len(content)),
            )
        except (KeyError, TypeError, struct.error):
            return record
        self.masks += content
        self.count += 1
        return _Row(self.count - 1)


def _images(records, problems):
    """Return ids, names and sizes of the images that can be used."""
    images = []
    for record in records:
        id, name, height, width = record if isinstance(record, tuple) else (None,) * 4
        if type(id) is not int or not isinstance(name, str) or not name or "\0" in name:
            problems.append(f"image {_short(record)} takes id, a whole number, and file_name; mend it")
        elif not all(type(side) is int and side > 0 for side in (height, width)) or height * width > MOST_PIXELS:
            problems.append(
                f"image {id} ({_text(name)}) takes height and width, at most {MOST_PIXELS} pixels together, but has "
                f"{_short(height)}, {_short(width)}; mend it"
            )
        else:
            images.append((id, name, (height, width)))
    images = _once(images, lambda id: f"image id {id} is there twice; give each image an id of its own", problems)
    ids, names, sizes = zip(*images) if images else ((), (), ())
    names = np.array([name.encode("utf-8", "surrogatepass") for name in names], bytes)
    return np.array(ids, np.int64), names, np.array(sizes, np.int32).reshape(-1, 2)


def _categories(records, problems):
    """Return ids and names of the categories, by their ids."""
    categories = []
    for record in records:
        id, name = (record.get("id"), record.get("name")) if isinstance(record, dict) else (None, None)
        if type(id) is not int or not isinstance(name, str) or not name:
            problems.append(f"category {_short(record)} takes id, a whole number, and name; mend it")
        else:
            categories.append((id, name))
    categories = _once(categories, lambda id: f"category id {id} is there twice; give each an id of its own", problems)
    names = [name for _, name in categories]
    for name in sorted({name for name in names if names.count(name) > 1}):
        problems.append(f"category '{name}' is there twice, with several ids; merge them")
    ids, names = zip(*sorted(categories)) if categories else ((), ())
    return np.array(ids, np.int64), list(names)


def _once(records, problem, problems):
    """Return the records, each an id and more, without those whose id another had before."""
    seen, kept = set(), []
    for record in records:
        if record[0] in seen:
            problems.append(problem(record[0]))
        else:
            kept.append(record)
        seen.add(record[0])
    return kept


def _rows(taken, records, images, categories, problems):
    """Return the annotations that can be used, by image, and the places of their masks."""
    image_ids, category_ids = images[0], categories[0]
    faulty = [record for record in records if type(record) is not _Row]
    problems += [_fault(record) for record in faulty]
    rows = np.frombuffer(taken.rows, _ROW).copy()
    places = np.stack([np.append(0, rows["mask_end"])[:-1], rows["mask_end"]], 1)
    # Objects elsewhere in the file may have looked like annotations.
    if len(records) - len(faulty) != len(rows):
        own = np.array([record for record in records if type(record) is _Row], int)
        rows, places = rows[own], places[own]
    given = rows[["id", "image", "category"]].copy()
    rows["image"], rows["category"] = _positions(given["image"], image_ids), _positions(given["category"], category_ids)
    first = np.zeros(len(rows), bool)
    first[np.unique(given["id"], return_index=True)[1]] = True
    whole = np.isfinite(rows["box"]).all(1) & ~np.isinf(rows["area"])
    for wrong, text in (
        (~first, "this annotation id is there twice; give each an id of its own"),
        (rows["image"] < 0, "no image has this id; add it, or remove the annotation"),
        (rows["category"] < 0, "category_id {category} is none of the categories; add it, or mend the annotation"),
        (~whole, "bbox or area has a number that is not finite; mend it"),
        (whole & (rows["box"][:, 2:] < 0).any(1), "bbox is {box} but takes x, y, width, height, the last two from 0"),
    ):
        for row in np.flatnonzero(wrong):
            said = text.format(category=given["category"][row], box=rows["box"][row].tolist())
            problems.append(f"{_named(given['id'][row], given['image'][row])}: {said}")
    usable = first & (rows["image"] >= 0) & (rows["category"] >= 0) & whole & (rows["box"][:, 2:] >= 0).all(1)
    order = np.flatnonzero(usable)[np.argsort(rows["image"][usable], kind="stable")]
    return rows[order], places[order]


def _positions(ids, known):
    """Return the position of each id among the ids `known`, -1 where it is none of them."""
    order = np.argsort(known)
    places = np.searchsorted(known, ids, sorter=order)
    found = order[np.minimum(places, len(known) - 1)] if len(known) else np.zeros(len(ids), int)
    return np.where((known[found] == ids) if len(known) else False, found, -1)


def _fault(record):
    """Return what is wrong with an annotation that could not be read."""
    if not isinstance(record, dict) or not record.keys() >= {"id", "image_id"}:
        return f"annotation {_short(record)} is not as {_EXAMPLE}; mend it"
    name = _named(record.get("id"), record["image_id"])
    for key in ("id", "image_id", "category_id"):
        if type(record.get(key)) is not int:
            return f"{name}: {key} is {_short(record.get(key))} but takes a whole number"
    if not isinstance(record.get("bbox"), list) or len(record["bbox"]) != 4:
        return f"{name}: bbox is {_short(record.get('bbox'))} but takes four numbers, x, y, width, height"
    return f"{name}: bbox, area or a flag is not a number; it is as {_EXAMPLE}"


def _named(id, image):
    return f"annotation {id} of image {image}"


def _text(name):
    return name.encode("utf-8", "backslashreplace").decode()


def _short(value):
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
