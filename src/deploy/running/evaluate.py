# SPDX-License-Identifier: Apache-2.0
"""How good an exported file is, on the images and by the measure by which its checkpoint is judged."""

from src.deploy.running.exported import ExportedModel
from src.errors import UserError
from src.tasks import create_task
from src.training.evaluate import evaluate_timed


def evaluate_exported(config, path, world, key=None, per_class=None):
    """Evaluate an exported file on the evaluation images of a `Config`, in batches as the file takes them.

    Args:
        path: `.onnx` or `.mindir`, its description beside it.
        key (bytes): of an encrypted MindIR.
        per_class: see `src.training.evaluate.evaluate_checkpoint`.

    Returns:
        tuple: as `src.training.evaluate.evaluate_checkpoint`.

    Raises:
        UserError: the data or the file cannot be used, or the file was made for another task, other classes or other
            images.
    """
    model, task = ExportedModel(path, config.device.target, key), create_task(config)
    of_file = model.card.get("task", config.task)
    if of_file != config.task:
        raise UserError(f"model {path} is of task {of_file} but --config of {config.task}; give the one it came from")
    return evaluate_timed(task, task.judge_file(model, f"model {path}"), world, per_class)
