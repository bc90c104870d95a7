# SPDX-License-Identifier: Apache-2.0
"""From image files to labels with probabilities, by an exported file or a checkpoint."""

import os
from pathlib import Path

import numpy as np

from src.config import load_config
from src.data.transforms import preprocessing
from src.deploy.card import class_labels
from src.deploy.running.exported import ExportedModel
from src.deploy.running.images import ImageBatches
from src.deploy.running.runtime import CheckpointModel
from src.errors import UserError

# Where neither the file nor the caller says.
_BATCH_SIZE = 8


class Classifier:
    """A network with what stands before and after it.

    Args:
        model: has `logits(images)`, see `src.deploy.running.exported` and `src.deploy.running.runtime`.
        batch_size (int): images that the model takes at once.
        spec (dict): how an image is prepared, see `src.data.preprocessing`.
        labels (list): the name of each class.
        is_fixed (bool): it takes no fewer either.
        as_pixels (bool): it takes uint8 (B, H, W, C) and normalises them itself.
    """

    def __init__(self, model, batch_size, spec, labels, is_fixed=True, as_pixels=False):
        self.model, self.batch_size, self.spec, self.labels = model, batch_size, spec, labels
        self.is_fixed, self.as_pixels = is_fixed, as_pixels

    def read(self, paths, threads=None):
        """Return the `ImageBatches` of image files, prepared by so many threads; None: one for each core."""
        cores = os.cpu_count()
        return ImageBatches(paths, self.spec, self.batch_size, min(threads or cores, cores), self.as_pixels)

    def classify(self, batches, topk):
        """Yield `(path, [(label, probability), ...])` for each image, the `topk` most probable classes first.

        Args:
            batches (ImageBatches): what `read` returned; it knows which images could not be read.
            topk (int): at least 1.

        Raises:
            UserError: the model is not what its description says.
        """
        size = self.batch_size if self.is_fixed else 0
        for paths, images in batches:
            # The last batch is filled up: MindSpore compiles anew for each size.
            size = size or len(paths)
            images = np.pad(images, [(0, size - len(paths)), (0, 0), (0, 0), (0, 0)])
            for path, probabilities in zip(paths, softmax(self.model.logits(images))):
                best = np.argsort(-probabilities, kind="stable")[:topk]
                yield path, [(self.labels[k], float(probabilities[k])) for k in best]


def softmax(logits):
    """(B, K) -> (B, K), each row positive with sum 1."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def open_classifier(path, config_path=None, batch_size=None, **options):
    """Return the `Classifier` of a model file; MindSpore's kinds run on the device that is set up.

    Args:
        path: `.onnx` or `.mindir` with its description beside it, or the `.ckpt` of a training.
        config_path: for a checkpoint, the YAML file of its training; None: the config.yaml beside it.
        batch_size (int): images at once; None: what the file takes, or a few.
        options: of `ExportedModel`: device, key, threads.

    Raises:
        UserError: a file is missing, damaged or of the wrong kind, takes another number of images at once, or
            onnxruntime cannot use the device.
    """
    path = Path(path)
    if path.suffix not in (".onnx", ".mindir", ".ckpt"):
        raise UserError(f"--model {path} is of no known kind; it takes a .onnx, .mindir or .ckpt file")
    if path.suffix == ".ckpt":
        return _of_checkpoint(path, config_path, batch_size or _BATCH_SIZE, options.get("key"))
    if config_path:
        raise UserError(f"--config goes with a .ckpt only; {path.name} has its own description beside it: leave it out")
    model = ExportedModel(path, **options)
    fixed = model.batch_size
    if fixed and batch_size not in (None, fixed):
        raise UserError(
            f"--batch_size is {batch_size} but {path.name} takes {fixed} image(s) at once; leave it out, or export "
            f"with --batch_size {batch_size}"
        )
    spec, labels = model.card["preprocessing"], model.card["labels"]
    return Classifier(model, fixed or batch_size or _BATCH_SIZE, spec, labels, bool(fixed), model.is_of_pixels)


def _of_checkpoint(path, config_path, batch_size, key):
    if key is not None:
        raise UserError(f"--key goes with an encrypted .mindir only; leave it out with {path.name}")
    beside = path.with_name("config.yaml")
    if not config_path and not beside.is_file():
        raise UserError(f"there is no {beside}; give the configuration of the training with --config")
    config = load_config(config_path or beside)
    model = CheckpointModel(path, config.model)
    spec = preprocessing(config.data, config.model.image_size, config.model.in_channels)
    return Classifier(model, batch_size, spec, class_labels(config, model.meta).names, is_fixed=False)
