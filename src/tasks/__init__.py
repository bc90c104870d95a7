# SPDX-License-Identifier: Apache-2.0
"""The tasks: what a network can be trained for, each said once; see `src.training.task`, and `deployment` there."""

from src.tasks.classification import Classification
from src.tasks.segmentation import Segmentation

TASKS = {"classification": Classification, "segmentation": Segmentation}


def create_task(config):
    """Return the `Task` of a `Config`."""
    return TASKS[config.task](config)


def deployment_of(card):
    """Return the `Deployment` of a description; those of exports that name no task are of classifiers.

    Raises:
        KeyError: a task that is none.
    """
    return TASKS[card.get("task", "classification")].deployment(card)
