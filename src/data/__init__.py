# SPDX-License-Identifier: Apache-2.0
"""From files to batches: sources (`image_folder`, `digits`, `cifar`, `mnist`), `classes`, `transforms`, `dataset`."""

from src.data.classes import Classes, classes_to_train
from src.data.dataset import create_dataset, iterate
from src.data.transforms import eval_transform, load_image, preprocessing

__all__ = [
    "Classes",
    "classes_to_train",
    "create_dataset",
    "eval_transform",
    "iterate",
    "load_image",
    "preprocessing",
]
