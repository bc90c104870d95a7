# SPDX-License-Identifier: Apache-2.0
"""From image files to labels with probabilities, by an exported file or a checkpoint."""

from pathlib import Path

import numpy as np

from src.config import load_config
from src.data.image_folder import IMAGE_TYPES
from src.data.transforms import load_image, preprocessing
from src.deploy.card import class_labels, read_card
from src.deploy.runtime import CheckpointModel, MindirModel, OnnxModel
from src.errors import UserError


class Classifier:
    """A network with what stands before and after it.

    Args:
        model: has `logits(images)`, see `src.deploy.runtime`.
        batch_size (int): images that the model takes at once.
        spec (dict): how an image is prepared, see `src.data.load_image`.
        labels (list): the name of each class.
    """

    def __init__(self, model, batch_size, spec, labels):
        self.model, self.batch_size, self.spec, self.labels = model, batch_size, spec, labels

    def classify(self, paths, topk):
        """Yield `(path, [(label, probability), ...])` for each image file, the `topk` most probable classes first.

        Raises:
            UserError: an image is missing or damaged.
        """
        for start in range(0, len(paths), self.batch_size):
            batch = paths[start : start + self.batch_size]
            images = np.stack([load_image(path, self.spec) for path in batch])
            lacking = self.batch_size - len(batch)
            images = np.pad(images, [(0, lacking), (0, 0), (0, 0), (0, 0)])
            for path, probabilities in zip(batch, softmax(self.model.logits(images))):
                best = np.argsort(-probabilities, kind="stable")[:topk]
                yield path, [(self.labels[k], float(probabilities[k])) for k in best]


def softmax(logits):
    """(B, K) -> (B, K), each row positive with sum 1."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def open_classifier(path, config_path=None, device="CPU"):
    """Return the `Classifier` of a model file; MindSpore's kinds run on the device that is set up.

    Args:
        path: `.onnx` or `.mindir` with its description beside it, or the `.ckpt` of a training.
        config_path: for a checkpoint, the YAML file of its training; None: the config.yaml beside it.
        device (str): where onnxruntime runs an ONNX file: "CPU", "GPU" or "Ascend".

    Raises:
        UserError: a file is missing, damaged or of the wrong kind, or onnxruntime cannot use the device.
    """
    path = Path(path)
    if path.suffix not in (".onnx", ".mindir", ".ckpt"):
        raise UserError(f"--model {path} is of no known kind; it takes a .onnx, .mindir or .ckpt file")
    if path.suffix == ".ckpt":
        return _of_checkpoint(path, config_path)
    if config_path:
        raise UserError(f"--config goes with a .ckpt only; {path.name} has its own description beside it: leave it out")
    card = read_card(path)
    model = OnnxModel(path, device) if path.suffix == ".onnx" else MindirModel(path)
    return Classifier(model, card["input"]["shape"][0], card["preprocessing"], card["labels"])


def _of_checkpoint(path, config_path):
    beside = path.with_name("config.yaml")
    if not config_path and not beside.is_file():
        raise UserError(f"there is no {beside}; give the configuration of the training with --config")
    config = load_config(config_path or beside)
    model = CheckpointModel(path, config.model)
    spec = preprocessing(config.data, config.model.image_size, config.model.in_channels)
    return Classifier(model, 1, spec, class_labels(config, model.meta))


def find_images(path):
    """Return the image file `path`, or all images in and below the folder `path`, as a sorted list.

    Raises:
        UserError: there is no such file or folder, or the folder holds no image.
    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"there is no image or folder {path}")
    images = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_TYPES)
    if not images:
        raise UserError(f"folder {path} has no image ({', '.join(IMAGE_TYPES)})")
    return images
