# SPDX-License-Identifier: Apache-2.0
"""The tasks: what a network can be trained for, each said once; see `src.training.task`, and `deployment` there."""

from src.config import Config, ModelConfig
from src.tasks.classification import Classification
from src.tasks.detection import Detection
from src.tasks.segmentation import Segmentation

TASKS = {"classification": Classification, "segmentation": Segmentation, "detection": Detection}


def create_task(config):
    """Return the `Task` of a `Config`."""
    return TASKS[config.task](config)


def config_of(name, **model):
    """Return the `Config` of a network by its name, a backbone or HEAD_BACKBONE as in "upernet_swin_tiny".

    Args:
        model: what else is to be said of it, see `ModelConfig`.
    """
    for task, kind in TASKS.items():
        for head in kind.heads:
            if name.startswith(f"{head}_"):
                backbone = name.removeprefix(f"{head}_")
                model = {"num_classes": kind.usual_classes, **model}
                return Config(task=task, model=ModelConfig(backbone, head=head, **model))
    return Config(model=ModelConfig(name, **model))


def deployment_of(card):
    """Return the `Deployment` of a description; those of exports that name no task are of classifiers.

    Raises:
        KeyError: a task that is none.
    """
    return TASKS[card.get("task", "classification")].deployment(card)
