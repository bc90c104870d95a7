# SPDX-License-Identifier: Apache-2.0
"""A finished training of a detector to export, with images and boxes: photographs of nothing, cut into things."""

import json

import cv2
import numpy as np
from exported_run import write_run
from PIL import Image

from src.deploy.running.predict import open_predictor

NAMES, IDS = ["ant", "bee", "cat"], [2, 3, 90]
CONFIG = """
task: detection
model: {name: resnet26, head: retinanet, head_channels: 16, num_classes: 3, image_size: [64, 96], options: OPTIONS}
data: {mean: [0.4, 0.5, 0.6], std: [0.2, 0.25, 0.3], num_workers: 2, batch_size: 2, data_dir: DATA}
detection:
  scale: [64, 96]
  val_images: images
  val_annotations: boxes.json
scheduler: {warmup_epochs: 0}
"""
OPTIONS = "{stem: small, width: 8, depths: [1, 1, 1, 1]}"


def write_detector(folder, *overrides, options=OPTIONS):
    """Write config.yaml and best.ckpt into `folder` as a training leaves them, and return the `Config`."""
    text = CONFIG.replace("DATA", str(folder / "data"))
    return write_run(folder, *overrides, options=options, text=text, meta={"classes": NAMES, "category_ids": IDS})


def write_photographs(folder, sizes):
    """Write images of `sizes`, (H, W) each, and COCO's JSON, in which nothing is on them."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    said = {"images": [], "annotations": [], "categories": [{"id": a, "name": b} for a, b in zip(IDS, NAMES)]}
    for number, (height, width) in enumerate(sizes):
        pixels = cv2.resize(rng.integers(0, 256, (6, 6, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
        name = f"{number:012d}.png"
        Image.fromarray(pixels).save(folder / "images" / name)
        said["images"].append({"id": number, "file_name": name, "height": height, "width": width})
    (folder / "boxes.json").write_text(json.dumps(said))


def write_what_is_found(checkpoint, folder):
    """Let every fourth box that the network of a checkpoint finds, moved a little, be on the photographs."""
    said, predictor = json.loads((folder / "boxes.json").read_text()), open_predictor(checkpoint)
    for path, found in predictor.answers(predictor.read(sorted((folder / "images").iterdir()))):
        found = found.only((found.boxes[:, 2:] > found.boxes[:, :2] + 1).all(1))
        for (x1, y1, x2, y2), label in zip(found.boxes[::4].tolist(), found.labels[::4]):
            bbox = [x1 + 0.1 * (x2 - x1), y1, x2 - x1, y2 - y1]
            ends = {"category_id": IDS[label], "bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": 0}
            said["annotations"].append({"id": len(said["annotations"]) + 1, "image_id": int(path.stem), **ends})
    (folder / "boxes.json").write_text(json.dumps(said))
