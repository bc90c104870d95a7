# SPDX-License-Identifier: Apache-2.0
"""The settings of one task alone, see `src.config`."""
# ruff: noqa: RUF009 (key returns dataclass fields)

import dataclasses

from src.schema import ascending_pair, at_least, below, between, each, each_if_any, each_of_two, key, one_of

# model.head, by task; a classifier has none.
HEADS = {"segmentation": ("fpn", "upernet"), "detection": ("retinanet", "maskrcnn", "cascade_maskrcnn")}
_SIDE = between(1, 100000)


@dataclasses.dataclass(frozen=True)
class SegmentationConfig:
    """Of task segmentation alone; data.hflip, mean, std, batch_size and num_workers hold there too."""

    train_images: str = key("images/training", "folder of images to train on, in data.data_dir")
    train_masks: str = key("annotations/training", "folder of their masks, PNG files of the same names")
    val_images: str = key("images/validation", "folder of images to evaluate on")
    val_masks: str = key("annotations/validation", "folder of their masks")
    class_names: str = key("", "file in data.data_dir with the name of a class on each line; empty: their numbers")
    reduce_zero_label: bool = key(True, "0 in a mask is no class, and 1 the first, as in ADE20K")
    ignore_label: int = key(255, "value in masks of pixels without a class", between(0, 255))
    scale: list[float] = key(
        [512.0, 2048.0], "shorter and longer side that images are made to fit into, pixels", ascending_pair(100000)
    )
    scale_range: list[float] = key([0.5, 2.0], "of training: factors on scale, drawn for each image", ascending_pair())
    most_of_one_class: float = key(0.75, "share of a training crop that one class may have", between(0, 1))
    distortion: bool = key(True, "whether training changes brightness, contrast, saturation and hue")
    divisor: int = key(32, "of evaluation: sides are enlarged to a multiple of it", at_least(1))
    eval_scales: list[float] = key([1.0], "of evaluation: factors on scale, judged together", each(between(0.1, 10)))
    eval_flip: bool = key(False, "of evaluation: judge each image flipped too, together with itself")
    window_stride: int | list[int] = key(
        0, "of evaluation: from a window of model.image_size to the next; 0: whole images", each_of_two(at_least(0))
    )
    average: str = key("all", "loss over all pixels, as published, or over those with a class", one_of("all", "valid"))
    auxiliary_weight: float = key(0.4, "of upernet: share of its auxiliary head in the loss", at_least(0))
    dropout: float = key(0.1, "share of the channels left out before each classifier", below(0, 1))
    init_std: float = key(
        0.01, "of the classifiers' initial weights; 0.01, as published, is little without pretraining", between(1e-6, 1)
    )


@dataclasses.dataclass(frozen=True)
class DetectionConfig:
    """Of task detection alone; data.hflip, mean, std, orientation, batch_size and num_workers hold there too."""

    train_images: str = key("train2017", "folder of images to train on, in data.data_dir")
    train_annotations: str = key("annotations/instances_train2017.json", "what is on them, COCO's JSON")
    val_images: str = key("val2017", "folder of images to evaluate on")
    val_annotations: str = key("annotations/instances_val2017.json", "what is on those")
    class_names: str = key(
        "",
        "file in data.data_dir with the name of a category on each line, which are the classes then; empty: all "
        "categories, in the order of their ids",
    )
    keep_empty: bool = key(False, "of training: also images without a box; in evaluation they always are")
    max_boxes: int = key(100, "room for boxes of a training image; more are an error", at_least(1))
    max_detections: int = key(100, "of an image, the best that are given and judged", at_least(1))
    threshold: float = key(0.05, "least score of a detection", between(0, 1))
    overlap: float = key(0.5, "intersection over union of two detections of a class, at most", between(0, 1))
    init_std: float = key(
        0.01, "of the heads' initial weights; 0.01, as published, is little without pretraining", between(1e-6, 1)
    )
    scale: list[float] = key(
        [800.0, 1333.0], "shorter and longer side that images are made to fit into, pixels", ascending_pair(100000)
    )
    divisor: int = key(32, "sides of the network's pictures, wide and tall, are a multiple of it", at_least(1))
    short_sides: list[float] = key(
        [],
        "of training: in the place of the shorter side, one is drawn for each image; empty: scale",
        each_if_any(_SIDE),
    )
    crop: float = key(0.0, "of training: share of images of which first a part is cut out", between(0, 1))
    crop_short_sides: list[float] = key(
        [400.0, 500.0, 600.0], "of crop: shorter sides before, one is drawn for each image", each(_SIDE)
    )
    crop_sides: list[float] = key([384.0, 600.0], "of crop: least and most pixels of its sides", ascending_pair(100000))
