# SPDX-License-Identifier: Apache-2.0
"""Top-1, top-5 and loss of an exported file, on the images and by the measure by which its checkpoint is judged."""

import dataclasses

import mindspore as ms
import numpy as np
from mindspore import nn

from src.data.transforms import preprocessing
from src.deploy.card import card_classes
from src.deploy.running.exported import ExportedModel
from src.errors import UserError
from src.tasks.class_judge import ClassJudge, EvaluationStep
from src.tasks.classification import Classification
from src.training.evaluate import evaluate_timed


class _ExportedStep:
    """Stands in for the `EvaluationStep` of a network: judges the logits of an `ExportedModel` by one."""

    def __init__(self, model):
        self.model, self.judge = model, EvaluationStep(nn.Identity())

    def set_train(self, mode):
        self.judge.set_train(mode)

    def compile(self, image, label):
        # MindSpore does it at the first call.
        self(image, label)

    def __call__(self, image, label):
        return self.judge(ms.Tensor(self.model.logits(image.asnumpy())), label)


def evaluate_exported(config, path, world, key=None, per_class=None):
    """Evaluate an exported file on the evaluation images of a `Config`, in batches as the file takes them.

    Args:
        path: `.onnx` or `.mindir`, its description beside it.
        key (bytes): of an encrypted MindIR.
        per_class: see `src.training.evaluate.evaluate_checkpoint`.

    Returns:
        tuple: as `src.training.evaluate.evaluate_checkpoint`.

    Raises:
        UserError: the data or the file cannot be used, or the file was made for other classes or other images.
    """
    model = ExportedModel(path, config.device.target, key)
    card = model.card
    spec, classes = card["preprocessing"], card_classes(card)
    wanted = preprocessing(config.data, config.model.image_size, config.model.in_channels)
    for name, value in wanted.items():
        if spec[name] != value:
            raise UserError(
                f"model {path} was exported for images of {name} {spec[name]} but --config has {value}; give the "
                "configuration it was exported with, or export again"
            )
    data = dataclasses.replace(config.data, batch_size=model.batch_size or config.data.batch_size)
    task = Classification(dataclasses.replace(config, data=data), as_pixels=model.is_of_pixels)
    task.open_to_judge(classes.to_record(), f"model {path}")
    batch = np.zeros((data.batch_size, *card["input"]["shape"][1:]), np.uint8 if model.is_of_pixels else np.float32)
    return evaluate_timed(task, ClassJudge(_ExportedStep(model), batch, classes.names), world, per_class)
