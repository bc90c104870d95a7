# SPDX-License-Identifier: Apache-2.0
"""Trees from the air: real photographs with boxes drawn by hand, of PyPI's package deepforest (MIT).

Four aerial pictures, 951 trees, cut into tiles, as COCO has its images and annotations.
"""

import io
import json
import os
import tempfile
import zipfile
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from src.errors import UserError

# The picture of another place is for validation: neighbouring tiles of one picture look alike.
PICTURES = {
    "training": ("2019_YELL_2_528000_4978000_image_crop2", "OSBS_029", "SOAP_061"),
    "validation": ("2019_YELL_2_541000_4977000_image_crop",),
}
TILE = 256  # at most so many pixels a side
SEEN = 0.5  # of a tree that is cut; what is less is a region to be ignored
CORNERS = ("xmin", "ymin", "xmax", "ymax")
MEND = "python -m pip download --no-deps deepforest==2.1.0 gets it"


def write_trees(wheel, data_dir):
    """Write data_dir/{training,validation}/NAME_ROW_COLUMN.png and {training,validation}.json from deepforest's wheel.

    The folder appears whole or not at all.

    Args:
        wheel: path of deepforest-2.1.0-py3-none-any.whl.

    Returns:
        dict: of each split (tiles, trees, regions to be ignored).

    Raises:
        UserError: `wheel` is missing or is something else; `data_dir` is there, or cannot be written.
    """
    data_dir = Path(data_dir)
    if data_dir.exists():
        raise UserError(f"{data_dir} is there already; give a new folder")
    try:
        with zipfile.ZipFile(wheel) as archive:
            pictures = {split: [_picture(archive, name) for name in names] for split, names in PICTURES.items()}
    except FileNotFoundError as error:
        raise UserError(f"{wheel}: there is no such file; {MEND}") from error
    except (OSError, zipfile.BadZipFile, KeyError, ElementTree.ParseError) as error:
        raise UserError(f"{wheel} is not deepforest's wheel, or is damaged ({error}); {MEND}") from error
    try:
        data_dir.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".trees-", dir=data_dir.parent) as scratch:
            folder = Path(scratch) / "trees"
            counts = {split: _write(folder, split, pictures[split]) for split in PICTURES}
            os.rename(folder, data_dir)
    except OSError as error:
        raise UserError(f"cannot write the trees to {data_dir} ({error.strerror})") from error
    return counts


def _picture(archive, name):
    """Return (name, pixels (H, W, 3), boxes (N, 4) as x1, y1, x2, y2) of a picture in the wheel."""
    root = ElementTree.fromstring(archive.read(f"deepforest/data/{name}.xml"))
    pixels = np.asarray(Image.open(io.BytesIO(archive.read(f"deepforest/data/{name}.png"))).convert("RGB"))
    boxes = [[float(tree.findtext(f"bndbox/{corner}")) for corner in CORNERS] for tree in root.findall("object")]
    return name, pixels, np.array(boxes)


def _write(folder, split, pictures):
    (folder / split).mkdir(parents=True)
    images, annotations = [], []
    for name, pixels, boxes in pictures:
        for row, column, corner, part in tiles(pixels):
            image = {"id": len(images) + 1, "file_name": f"{name}_{row}_{column}.png"}
            images.append({**image, "height": part.shape[0], "width": part.shape[1]})
            Image.fromarray(part).save(folder / split / image["file_name"])
            for box, is_seen in boxes_of(boxes - np.tile(corner, 2), part.shape):
                annotations.append(
                    {
                        **{"id": len(annotations) + 1, "image_id": image["id"], "category_id": 1},
                        **{"bbox": box, "area": box[2] * box[3], "iscrowd": int(not is_seen)},
                    }
                )
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "tree"}]}
    (folder / f"{split}.json").write_text(json.dumps(content), encoding="utf-8")
    ignored = sum(annotation["iscrowd"] for annotation in annotations)
    return len(images), len(annotations) - ignored, ignored


def tiles(pixels):
    """Cut (H, W, 3) into as few equal parts of at most `TILE` a side; yield (row, column, (x, y), pixels of it)."""
    rows, columns = (np.linspace(0, side, -(-side // TILE) + 1).astype(int) for side in pixels.shape[:2])
    for row, (top, bottom) in enumerate(pairwise(rows)):
        for column, (left, right) in enumerate(pairwise(columns)):
            yield row, column, (left, top), pixels[top:bottom, left:right]


def boxes_of(boxes, shape):
    """Yield ([x, y, width, height], whether enough of it is seen) of each box (N, 4) that reaches into a tile."""
    limits = np.array([shape[1], shape[0]] * 2)
    for box, inside in zip(boxes, np.clip(boxes, 0, limits)):
        whole, (width, height) = box[2:] - box[:2], inside[2:] - inside[:2]
        if width > 0 and height > 0:
            yield [*inside[:2].tolist(), float(width), float(height)], width * height >= SEEN * whole.prod()
