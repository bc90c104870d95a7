# SPDX-License-Identifier: Apache-2.0
"""From image files to answers, by an exported file or a checkpoint."""

import os
from pathlib import Path

from src.config import load_config
from src.deploy.running.exported import ExportedModel
from src.deploy.running.images import ImageBatches
from src.deploy.running.runtime import CheckpointModel
from src.errors import UserError
from src.tasks import create_task, deployment_of
from src.training.deployment import Runner

# Where neither the file nor the caller says.
_BATCH_SIZE = 8


class Predictor:
    """A network with what stands before and after it.

    Args:
        model: has `results(images)`, see `src.deploy.running.exported` and `src.deploy.running.runtime`.
        deployment (Deployment): what is to be known of it.
        batch_size (int): images that the model takes at once.
        is_fixed (bool): it takes no fewer either.
    """

    def __init__(self, model, deployment, batch_size, is_fixed=True):
        self.model, self.deployment, self.batch_size = model, deployment, batch_size
        self.run = Runner(model.results, batch_size, is_fixed)

    def read(self, paths, threads=None):
        """Return the `ImageBatches` of image files, prepared by so many threads; None: one for each core."""
        cores = os.cpu_count()
        at_once = self.deployment.at_once(self.batch_size)
        return ImageBatches(
            paths, self.deployment.steps, at_once, min(threads or cores, cores), self.deployment.columns
        )

    def answers(self, batches):
        """Yield `(path, answer)` for each image, see `src.training.deployment.Deployment.answers`.

        Args:
            batches (ImageBatches): what `read` returned; it knows which images could not be read.

        Raises:
            UserError: the model is not what its description says.
        """
        for paths, images in batches:
            yield from zip(paths, self.deployment.answers(self.run, *images))


def open_predictor(path, config_path=None, batch_size=None, **options):
    """Return the `Predictor` of a model file; MindSpore's kinds run on the device that is set up.

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
    return Predictor(model, deployment_of(model.card), fixed or batch_size or _BATCH_SIZE, bool(fixed))


def _of_checkpoint(path, config_path, batch_size, key):
    if key is not None:
        raise UserError(f"--key goes with an encrypted .mindir only; leave it out with {path.name}")
    beside = path.with_name("config.yaml")
    if not config_path and not beside.is_file():
        raise UserError(f"there is no {beside}; give the configuration of the training with --config")
    task = create_task(load_config(config_path or beside))
    model = CheckpointModel(path, task.build())
    return Predictor(model, task.deployment(task.describe(model.meta, model.network)), batch_size, is_fixed=False)
