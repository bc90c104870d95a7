# SPDX-License-Identifier: Apache-2.0
"""The tasks: what a network can be trained for, each said once (see `src.training.task`)."""

from src.tasks.classification import Classification
from src.tasks.segmentation import Segmentation

TASKS = {"classification": Classification, "segmentation": Segmentation}


def create_task(config):
    """Return the `Task` of a `Config`."""
    return TASKS[config.task](config)
