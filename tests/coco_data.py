# SPDX-License-Identifier: Apache-2.0
"""Small data sets in COCO's form, and their configurations, for tests of detection."""

import copy
import json

import numpy as np
from PIL import Image

from src.config import Config, DataConfig, ModelConfig, TrainConfig
from src.data.boxes import class_names, create_box_dataset, list_boxes, open_annotations
from src.device import World
from src.task_config import DetectionConfig

ALONE = World()

CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 2, "name": "cat"}, {"id": 90, "name": "tree"}]
# Of an image of 8 x 6 pixels: all runs, and the same written as text.
RUNS = {"size": [6, 8], "counts": [7, 2, 4, 2, 33]}


def box(id, image, category, bbox, **more):
    """An annotation."""
    area = bbox[2] * bbox[3]
    return {"id": id, "image_id": image, "category_id": category, "bbox": bbox, "area": area, "iscrowd": 0, **more}


def content():
    """Three images of 8 x 6, 6 x 8 and 8 x 6 pixels, of which the last has no box."""
    sizes = {30: (6, 8), 10: (8, 6), 20: (6, 8)}
    return {
        "images": [
            {"id": id, "file_name": f"{id}.png", "height": height, "width": width}
            for id, (height, width) in sizes.items()
        ],
        "annotations": [
            box(5, 10, 7, [0, 0, 3, 4], segmentation=[[0, 0, 3, 0, 3, 4, 0, 4]]),
            box(900100, 30, 2, [1, 1, 2, 2], segmentation=RUNS),
            box(3, 30, 90, [4, 2, 3.5, 2.5], segmentation=[[4, 2, 7.5, 2, 7.5, 4.5, 4, 4.5]]),
            box(2, 30, 7, [1, 1, 2, 2], segmentation=RUNS, iscrowd=1),
        ],
        "categories": copy.deepcopy(CATEGORIES),
    }


def write(folder, said=None):
    """Write images of noise and `said`, else `content()`, for training and evaluation, into `folder`; return it."""
    said = said or content()
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for image in content()["images"]:
        noise = np.random.default_rng(image["id"]).integers(0, 256, (image["height"], image["width"], 3), np.uint8)
        Image.fromarray(noise).save(folder / "pictures" / image["file_name"])
    (folder / "said.json").write_text(json.dumps(said))
    return folder


def settings(folder, head="retinanet", classes=3, batch_size=1, seed=0, **detection):
    """Return the `Config` of a detector for the folder that `write` wrote."""
    detection = {"scale": [32.0, 64.0], "max_boxes": 4, **detection}
    for split in ("train", "val"):
        detection[f"{split}_images"], detection[f"{split}_annotations"] = "pictures", "said.json"
    return Config(
        task="detection",
        model=ModelConfig("resnet26", head=head, num_classes=classes, image_size=[32, 64]),
        data=DataConfig(data_dir=str(folder), batch_size=batch_size, num_workers=2, hflip=0.5),
        detection=DetectionConfig(**detection),
        train=TrainConfig(seed=seed),
        output_dir=str(folder / "out"),
    )


def opened(config, split="train", with_masks=False):
    """The `BoxSplit` of a split."""
    file = open_annotations(config, split, with_masks)
    return list_boxes(config, split, file, class_names(config, file), with_masks)


def batches(config, listed, split="train", world=ALONE, epoch=0, skip=0):
    """The batches of an epoch after the first `skip`, as arrays."""
    made = create_box_dataset(config, listed, split, world, epoch)
    made = made.skip(skip) if skip else made
    return list(made.create_tuple_iterator(num_epochs=1, output_numpy=True))
