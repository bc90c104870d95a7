# SPDX-License-Identifier: Apache-2.0
"""A training of seconds: a small model, a few images, and the configuration of both."""

import dataclasses

import cv2
import numpy as np
from mindspore import nn

from src.config import load_config
from src.models.backbone import Backbone
from src.ops.drop_path import DropPath

CLASSES, SIZE = 3, 8


class Tiny(nn.Cell):
    """Has batch norm and stochastic depth, because moving averages and random state have to survive a resume too."""

    def __init__(self, spatial, num_classes, image_size, in_channels, drop_path_rate, features_only):
        super().__init__()
        self.conv = spatial(in_channels, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()
        self.fc = nn.Dense(8, num_classes)

    def construct(self, x):
        return self.fc(self.drop_path(self.relu(self.norm(self.conv(x)))).mean((2, 3)))


class TinyBackbone(Backbone):
    """Four maps, each of half the size of the one before, for heads to stand on; else as `Tiny`."""

    def __init__(self, spatial, num_classes, image_size, in_channels, drop_path_rate, features_only):
        super().__init__([8] * 4, 2, features_only)
        self.stages = nn.CellList([_stage(spatial, before, drop_path_rate) for before in (in_channels, 8, 8, 8)])

    def construct(self, x):
        maps = ()
        for stage in self.stages:
            x = stage(x)
            maps += (x,)
        return maps

    def layers(self):
        return tuple((stage,) for stage in self.stages)


def _stage(spatial, in_channels, drop_path_rate):
    drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()
    return nn.SequentialCell(spatial(in_channels, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), drop_path)


def write_images(folder):
    """Three classes of noisy grey images that differ in brightness: 8 to train on and 5 to evaluate on of each."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 5)):
        for label in range(CLASSES):
            (folder / split / f"class{label}").mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 60, (SIZE, SIZE)) + 80 * label
                cv2.imwrite(str(folder / split / f"class{label}" / f"{i}.png"), pixels.astype(np.uint8))
    return folder


def tiny_config(image_folder, folder):
    """Return the `Config` of four epochs of six steps on `image_folder`, with the results in `folder`/run."""
    path = folder / "tiny.yaml"
    path.write_text(
        f"""
        model: {{name: tiny_for_tests, num_classes: {CLASSES}, image_size: {SIZE}, in_channels: 1}}
        data: {{data_dir: {image_folder}, batch_size: 4, num_workers: 1, resize: {SIZE}, mean: [0.5], std: [0.5]}}
        optimizer: {{lr: 0.2, lr_batch: 0}}
        scheduler: {{warmup_epochs: 1}}
        train: {{epochs: 4, log_interval: 2}}
        output_dir: {folder / "run"}
        """
    )
    return load_config(path)


def changed(config, **sections):
    """Return `config` with keys replaced: `changed(config, train={"epochs": 2})`."""
    values = {
        name: dataclasses.replace(getattr(config, name), **value) if isinstance(value, dict) else value
        for name, value in sections.items()
    }
    return dataclasses.replace(config, **values)
