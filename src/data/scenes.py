# SPDX-License-Identifier: Apache-2.0
"""Scanned digits on photographs: a data set for segmentation and detection that writes itself, without a download.

The digits are scikit-learn's 1,797 scans, the photographs those that scikit-learn and matplotlib ship. Training and
validation share neither digits nor parts of photographs. Composed by a program, of real handwriting and real pictures.
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from src.errors import UserError

COUNTS = {"training": 800, "validation": 200}
SIDES = (128, 192)  # least and most pixels of a side, multiples of 16
DIGITS = (1, 5)  # least and most in a scene that has some
DIGIT_SIDES = (32, 96)
LIGHT = (0.2, 0.5)  # of the photographs: digits are lighter
CONTRAST = 110  # by at least so many grey levels than what they lie on
# Pixels around a digit that have no class, and the least part of one that has to be seen.
BAND, SEEN = 2, 0.25
EMPTY, CROWDED = 0.1, 0.05  # shares of scenes without a digit, and with a crowd of tiny ones
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "photograph")
# Of the digits in COCO's file: in no order and with gaps, as in real ones.
CATEGORY_IDS = (13, 1, 2, 5, 8, 3, 21, 34, 89, 55)
_FIRST_DIGIT, _PHOTOGRAPH = 1, 11  # in masks, where 0 has no class
_HELD_OUT = 4  # one of so many digits is for validation


def write_scenes(data_dir, counts=COUNTS):
    """Write data_dir/{images,annotations}/{training,validation}, as ADE20K has them, and COCO's instances_SPLIT.json.

    class_names.txt names the classes, and checksum.txt has the SHA-256 of all pixels and masks. The folder appears
    whole or not at all; one that is there is left alone.

    Args:
        counts (dict): scenes of each split.

    Raises:
        UserError: `data_dir` holds something else, or cannot be written.
    """
    data_dir = Path(data_dir)
    if (data_dir / "checksum.txt").is_file():
        return
    try:
        data_dir.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".scenes-", dir=data_dir.parent) as scratch:
            folder = Path(scratch) / "scenes"
            _write(folder, counts)
            os.rename(folder, data_dir)
    except OSError as error:
        # Another worker of the same job may have been first.
        if not (data_dir / "checksum.txt").is_file():
            raise UserError(
                f"cannot write the scenes to {data_dir} ({error.strerror}); --data_dir takes a new folder"
            ) from error


def _write(folder, counts):
    checksum = hashlib.sha256()
    for number, (split, count) in enumerate(counts.items()):
        digits, photographs = _sources(split)
        for kind in ("images", "annotations"):
            (folder / kind / split).mkdir(parents=True)
        images, annotations = [], []
        for index in range(count):
            scene = Scene(np.random.default_rng([number, index]), photographs, digits)
            name = f"{index:05d}"
            Image.fromarray(scene.pixels).save(folder / "images" / split / f"{name}.jpg", quality=92)
            Image.fromarray(scene.mask).save(folder / "annotations" / split / f"{name}.png")
            checksum.update(scene.pixels.tobytes() + scene.mask.tobytes())
            height, width = scene.mask.shape
            images.append({"id": index, "file_name": f"{name}.jpg", "height": height, "width": width})
            for instance in scene.instances:
                annotations.append({"id": len(annotations) + 1, "image_id": index, **_annotation(*instance)})
        categories = [{"id": id, "name": name} for id, name in sorted(zip(CATEGORY_IDS, NAMES))]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / f"instances_{split}.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "class_names.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    (folder / "checksum.txt").write_text(checksum.hexdigest() + "\n", encoding="utf-8")


def _sources(split):
    """Return the digits, (image (8, 8) in 0..1, class) each, and the parts of photographs, of a split."""
    # Loading these takes seconds, needed only the first time.
    from matplotlib.cbook import get_sample_data
    from sklearn.datasets import load_digits, load_sample_images

    digits, is_training = load_digits(), split == "training"
    taken = [(image / 16, int(label)) for image, label in zip(digits.images, digits.target)]
    with get_sample_data("grace_hopper.jpg") as file:
        portrait = np.asarray(Image.open(file).convert("RGB"))
    photographs = []
    for photograph in (*load_sample_images().images, portrait):
        half = photograph.shape[1] // 2
        photographs.append(photograph[:, :half] if is_training else photograph[:, half:])
    return [pair for i, pair in enumerate(taken) if (i % _HELD_OUT > 0) == is_training], photographs


class Scene:
    """One image: a part of a photograph with digits on it.

    Attributes:
        pixels: uint8 (H, W, 3).
        mask: uint8 (H, W), 0 without a class, 1 to 10 the digits, 11 the photograph.
        instances (list): (class or None for a crowd, what is seen of it as bool (H, W)) of each digit.
    """

    def __init__(self, random, photographs, digits):
        self.random = random
        height, width = (int(16 * random.integers(SIDES[0] // 16, SIDES[1] // 16 + 1)) for _ in range(2))
        self.pixels = self.part(photographs[random.integers(len(photographs))], height, width)
        self.owner = np.zeros((height, width), np.int32)  # which digit is seen: 0 none
        placed = []
        kind = random.random()
        if kind < CROWDED:
            placed += self.crowd(digits)
        elif kind > 1 - EMPTY:
            digits = []
        for _ in range(random.integers(DIGITS[0], DIGITS[1] + 1) if digits else 0):
            side = float(np.exp(random.uniform(*np.log(DIGIT_SIDES))))
            placed.append((*self.draw(digits, side, self.place(side)), len(placed) + 1))
        self.label(placed)

    def part(self, photograph, height, width):
        """Return a part of a photograph of (height, width), perhaps mirrored, lighter or darker."""
        zoom = max(height / photograph.shape[0], width / photograph.shape[1], self.random.uniform(0.5, 1.0))
        across, down = int(np.ceil(photograph.shape[1] * zoom)), int(np.ceil(photograph.shape[0] * zoom))
        resized = cv2.resize(photograph, (across, down), interpolation=cv2.INTER_AREA)
        top, left = (int(self.random.integers(there - side + 1)) for there, side in ((down, height), (across, width)))
        pixels = resized[top : top + height, left : left + width]
        pixels = pixels[:, ::-1] if self.random.random() < 0.5 else pixels
        return np.clip(pixels * self.random.uniform(*LIGHT), 0, 255).astype(np.uint8)

    def place(self, side):
        """Return the centre of a digit, (x, y), three quarters of it within the image."""
        height, width = self.owner.shape
        return tuple(self.random.uniform(side / 4, max(length - side / 4, side / 4 + 1)) for length in (width, height))

    def crowd(self, digits):
        """Draw a cluster of tiny digits; return them."""
        height, width = self.owner.shape
        x, y = self.random.uniform(24, width - 24), self.random.uniform(24, height - 24)
        placed = []
        for _ in range(12):
            centre = x + self.random.uniform(-20, 20), y + self.random.uniform(-20, 20)
            _, ink = self.draw(digits, 9.0, centre)
            placed.append((None, ink, len(placed) + 1))
        return placed

    def draw(self, digits, side, centre):
        """Draw a digit; return its class and where its ink lies, bool (H, W)."""
        image, label = digits[self.random.integers(len(digits))]
        height, width = self.owner.shape
        turn = cv2.getRotationMatrix2D((3.5, 3.5), self.random.uniform(-15, 15), side / 8)
        turn[:, 2] += np.array(centre) - 3.5
        ink = np.clip(cv2.warpAffine(image, turn, (width, height), flags=cv2.INTER_CUBIC), 0, 1)
        strength = np.clip(2 * ink[..., None] - 0.3, 0, 1) * self.random.uniform(0.8, 1.0)
        colour = self.ink(self.pixels[ink > 0.4].mean() if (ink > 0.4).any() else 0)
        self.pixels = (self.pixels * (1 - strength) + colour * strength).astype(np.uint8)
        return label, ink > 0.4

    def ink(self, beneath):
        """Draw a colour at least `CONTRAST` lighter than what it will lie on."""
        while (colour := self.random.uniform(0, 255, 3)).mean() < min(beneath + CONTRAST, 200):
            pass
        return colour

    def label(self, placed):
        """Fill `mask` and `instances`: later digits lie over earlier ones."""
        for _, ink, number in placed:
            self.owner[ink] = number
        kernel = np.ones((2 * BAND + 1,) * 2, np.uint8)
        self.mask = np.full(self.owner.shape, _PHOTOGRAPH, np.uint8)
        self.mask[cv2.dilate((self.owner > 0).astype(np.uint8), kernel) > 0] = 0
        self.instances, crowd = [], np.zeros(self.owner.shape, bool)
        for label, ink, number in placed:
            seen = self.owner == number
            if label is None:
                crowd |= seen
            elif seen.any() and seen.sum() >= SEEN * ink.sum():
                self.mask[seen] = _FIRST_DIGIT + label
                self.instances.append((label, seen))
        if crowd.any():
            self.instances.append((None, crowd))


def _annotation(label, seen):
    """Return an annotation of COCO: its outline as polygons where it is whole, else all its runs."""
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    box = [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1), int(rows[-1] - rows[0] + 1)]
    outlines, _ = cv2.findContours(seen.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if label is not None and len(outlines) == 1 and len(outlines[0]) > 2:
        shape = [outlines[0].ravel().tolist()]
    else:
        values = np.concatenate([[0], seen.T.ravel().astype(np.int8), [0]])
        ends = np.flatnonzero(np.diff(values))
        counts = np.diff(np.concatenate([[0], ends, [seen.size]])).tolist()
        shape = {"counts": counts, "size": [*seen.shape]}
    category = CATEGORY_IDS[0 if label is None else label]
    area = int(seen.sum())
    return {"category_id": category, "bbox": box, "area": area, "iscrowd": int(label is None), "segmentation": shape}
