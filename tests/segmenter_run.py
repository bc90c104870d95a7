# SPDX-License-Identifier: Apache-2.0
"""A finished training of a segmenter to export, with images and masks: photographs of nothing, cut into classes."""

import cv2
import numpy as np
from exported_run import write_run
from PIL import Image

from src.data.class_colours import palette

NAMES, COLOURS = ["ant", "bee", "cat", "dog"], [None, "#ff8000", None, None]
CONFIG = """
task: segmentation
model: {name: resnet26, head: fpn, head_channels: 16, num_classes: 4, image_size: [32, 64], options: OPTIONS}
data: {mean: [0.4, 0.5, 0.6], std: [0.2, 0.25, 0.3], num_workers: 2}
segmentation: {scale: [32, 64], divisor: 32, class_names: class_names.txt}
scheduler: {warmup_epochs: 0}
"""
OPTIONS = "{stem: small, width: 8, depths: [1, 1, 1, 1]}"


def write_segmenter(folder, *overrides, options=OPTIONS):
    """Write config.yaml and best.ckpt into `folder` as a training leaves them, and return the `Config`."""
    return write_run(folder, *overrides, options=options, text=CONFIG, meta={"classes": NAMES})


def write_pairs(folder, sizes):
    """Write images and masks of `sizes`, (H, W) each, as ADE20K has them, and the file of names."""
    rng = np.random.default_rng(0)
    for kind in ("images", "annotations"):
        (folder / kind / "validation").mkdir(parents=True)
    for number, (height, width) in enumerate(sizes):
        pixels = cv2.resize(rng.integers(0, 256, (4, 4, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
        values = cv2.resize(
            rng.integers(0, 5, (3, 5), np.uint8), (width, height), interpolation=cv2.INTER_NEAREST
        )  # 0: no class
        Image.fromarray(pixels).save(folder / "images" / "validation" / f"{number}.png")
        Image.fromarray(values).save(folder / "annotations" / "validation" / f"{number}.png")
    lines = [f"{name}\t{colour}" if colour else name for name, colour in zip(NAMES, COLOURS)]
    (folder / "class_names.txt").write_text("\n".join(lines) + "\n")


def colours():
    """uint8 (4, 3): of the classes, whose values in masks begin with 1."""
    given = palette(5)[1:]
    given[1] = [255, 128, 0]
    return given
