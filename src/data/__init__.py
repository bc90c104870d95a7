# SPDX-License-Identifier: Apache-2.0
"""From image files to batches: sources (`image_folder`, `digits`, `cifar`), `transforms`, batches (`dataset`)."""

from src.data.damage import readable_errors
from src.data.dataset import create_dataset, iterate
from src.data.image_folder import check_image_folder, class_names
from src.data.transforms import eval_transform, load_image, preprocessing

__all__ = [
    "check_image_folder",
    "class_names",
    "create_dataset",
    "eval_transform",
    "iterate",
    "load_image",
    "preprocessing",
    "readable_errors",
]
