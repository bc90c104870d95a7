# SPDX-License-Identifier: Apache-2.0
"""A finished training to export: its folder, with weights on which logits depend clearly on the image."""

import json

import mindspore as ms
import numpy as np
import pytest
from PIL import Image

from src.config import load_config, save_config
from src.deploy.card import card_path, read_card
from src.errors import UserError
from src.tasks import create_task
from src.training.checkpoint import save_weights

CLASSES = [f"class {letter}" for letter in "abcdefghij"]
CONFIG = """
model: {name: acmix_resnet26, num_classes: 10, image_size: 32, in_channels: 1, options: OPTIONS}
data: {resize: 36, mean: [0.3], std: [0.35]}
scheduler: {warmup_epochs: 0}
"""


def write_run(folder, *overrides, options="{stem: small, width: 8}", text=CONFIG, meta=None):
    """Write config.yaml and best.ckpt into `folder`, as a training leaves them, and return the `Config`."""
    (folder / "start.yaml").write_text(text.replace("OPTIONS", options))
    config = load_config(folder / "start.yaml", ["--output_dir", str(folder), *overrides])
    ms.set_context(mode=ms.GRAPH_MODE)
    network = create_task(config).build()
    rng = np.random.default_rng(0)
    for parameter in network.get_parameters():
        # Freshly initialised logits are all bias: no test of what comes before them.
        values = rng.standard_normal(parameter.shape) / 10
        if parameter.ndim > 1:
            values *= 10 / np.sqrt(np.prod(parameter.shape[1:]))
        elif parameter.name.endswith(("gamma", "moving_variance", "alpha")):
            values = rng.uniform(0.5, 1.5, parameter.shape)
        if not parameter.name.endswith(("shift.weight", "draws")):
            parameter.set_data(ms.Tensor(values.astype(np.float32)))
    save_config(config, folder / "config.yaml")
    save_weights(folder / "best.ckpt", network, meta or {})
    return config


def write_images(folder):
    """Write one image for each of `CLASSES` as an evaluation folder."""
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (folder / "val" / name).mkdir(parents=True)
        pixels = Image.fromarray(rng.integers(0, 255, (5, 4), np.uint8)).resize((40, 50), Image.BICUBIC)
        pixels.save(folder / "val" / name / "1.png")


def opencv_logits(path, images):
    """Return what OpenCV's dnn computes of an ONNX file for float32 (B, C, H, W): (B, K)."""
    import cv2

    network = cv2.dnn.readNetFromONNX(str(path))
    network.setInput(images)
    return network.forward()


def refuse_description(path, change, named):
    """Give the description beside a file other values, by key, and see it refused by a line that matches `named`."""
    before = card_path(path).read_text()
    card = json.loads(before)
    for key, value in change.items():
        (card["preprocessing"] if key in card["preprocessing"] else card)[key] = value
    try:
        card_path(path).write_text(json.dumps(card))
        with pytest.raises(UserError, match=named):
            read_card(path)
    finally:
        card_path(path).write_text(before)
