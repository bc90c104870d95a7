# SPDX-License-Identifier: Apache-2.0
"""Classifiers outside: an image file in, the most probable classes with their probabilities out."""

import math
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn

from src.data.class_names import name_classes
from src.data.classes import Classes
from src.data.image_files import MOST_PIXELS
from src.data.image_folder import list_split
from src.data.transforms import eval_transform
from src.tasks.class_judge import ClassJudge, EvaluationStep
from src.tasks.class_results import open_results
from src.training.deployment import LOGITS, PROBABILITIES, Deployment, softmax

TOPK = 5


class ClassDeployment(Deployment):
    """Images scaled and cropped to one size; an answer is the probabilities (K,) of the classes.

    The description has "classes" beside "labels": the folders that tell the classes apart, None where only numbers are
    known. Earlier exports tell their names alone.
    """

    outputs, options = (LOGITS, PROBABILITIES), ("topk",)

    @property
    def classes(self):
        """The `Classes` of the network."""
        return Classes(self.card.get("classes", self.labels), self.labels)

    def wrong(self):
        spec = self.spec
        try:
            eval_transform(spec)
            if not 1 <= spec["resize"] <= math.isqrt(MOST_PIXELS):
                raise ValueError(f"resize takes 1 to {math.isqrt(MOST_PIXELS)}")
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            return f"preprocessing cannot be used ({error})"
        classes = self.card.get("classes")
        is_list_of_text = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
        if classes is not None and (not is_list_of_text or len(classes) != len(self.labels)):
            return f"classes are not the folders of the {len(self.labels)} labels"
        return ""

    def results(self, form, images):
        return {form: [images, len(self.labels)]}

    def at_once(self, batch_size):
        return batch_size

    def steps(self, name):
        return eval_transform(self.spec, name, self.as_pixels)

    def answers(self, run, images):
        return softmax(np.stack([logits for (logits,) in run(images)]))

    def found(self, answer):
        return answer.argmax()

    def best(self, answer, topk):
        """Return `[(label, probability), ...]`, the most probable ones first."""
        return [(self.labels[k], float(answer[k])) for k in np.argsort(-answer, kind="stable")[:topk]]

    def open_results(self, folder, arguments):
        topk = min(arguments.topk or TOPK, len(self.labels))
        return open_results(arguments.output, arguments.json, topk, lambda answer: self.best(answer, topk))


class _FileStep:
    """Stands in for the `EvaluationStep` of a network: judges the logits of a file by one."""

    def __init__(self, model):
        self.model, self.judge = model, EvaluationStep(nn.Identity())

    def set_train(self, mode):
        self.judge.set_train(mode)

    def compile(self, image, label):
        # MindSpore does it at the first call.
        self(image, label)

    def __call__(self, image, label):
        return self.judge(ms.Tensor(self.model.results(image.asnumpy())[0]), label)


def judge_of_file(model, batch_size, names):
    """Return the `ClassJudge` of a file, see `src.training.task.Task.judge_file`, in batches of `batch_size` images."""
    kind = np.uint8 if model.card["input"]["dtype"] == "uint8" else np.float32
    return ClassJudge(_FileStep(model), np.zeros((batch_size, *model.card["input"]["shape"][1:]), kind), names)


def class_labels(config, meta):
    """Return the `Classes` of a network: those the training wrote into its checkpoint, else of the evaluation images.

    Where there are neither, their numbers alone. What `class_names.txt` says takes the place of the names.

    Args:
        config (Config): the experiment.
        meta (dict): of its checkpoint.

    Raises:
        UserError: the folder of the evaluation images has another number of classes.
    """
    data, classes = config.data, Classes.recorded(meta, config.model.num_classes)
    if classes.folders is None and data.data_dir and Path(data.data_dir, data.val_split).is_dir():
        images = list_split(data, "val")
        of_folder = Classes.of(data, images)
        classes.numbers_of(of_folder, images.folder, "the network")
        return of_folder
    if classes.folders is not None and data.data_dir:
        names = name_classes(data.data_dir, classes.folders)
        return Classes(classes.folders, classes.names if names == classes.folders else names)
    return classes
