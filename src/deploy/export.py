# SPDX-License-Identifier: Apache-2.0
"""Writing a trained network as MindIR, ONNX or AIR; a file gets its name when it has computed what the network does."""

import shutil
import tempfile
from pathlib import Path

import mindspore as ms
import numpy as np
import onnx
from mindspore import nn
from mindspore.onnx import export as export_onnx

from src.data.transforms import preprocessing
from src.deploy.card import class_labels, sha256, write_card
from src.deploy.onnx_graph import tidy
from src.deploy.runtime import CheckpointModel, MindirModel, OnnxModel
from src.errors import UserError, did_you_mean
from src.training.atomic import replacing

FORMATS = ("mindir", "onnx", "air")
INPUT, OUTPUT = "image", "logits"
# Largest difference from the network's logits, as a part of the largest of them.
TOLERANCE = 1e-4


class WrongExport(Exception):
    """An exported file did not compute what the network computes, and was deleted."""


class _Deployed(nn.Cell):
    """The network, its input named as in the exported file."""

    def __init__(self, network):
        super().__init__(auto_prefix=False)
        self.network = network
        self.set_train(False)

    def construct(self, image):
        return self.network(image)


def export_checkpoint(config, checkpoint, formats, batch_size=1):
    """Write a checkpoint as `<output_dir>/<model>_<image size>_b<batch size>.<format>`, each with its description.

    MindIR is run in MindSpore, ONNX in onnxruntime, on a seeded input. AIR is not run: that takes Ascend's converter.

    Args:
        config (Config): the experiment; the files go to its `output_dir`.
        checkpoint: a `.ckpt` file of its training.
        formats (list): some of `FORMATS`.
        batch_size (int): images that a file takes at once.

    Returns:
        dict: path of each file -> its largest difference from the network's logits, as a part of the largest of them;
        None for AIR.

    Raises:
        UserError: an unknown or impossible format, or a model, checkpoint or folder that cannot be used.
        WrongExport: the difference of a file is above `TOLERANCE`.
    """
    _check(formats, batch_size, config.device.target)
    folder = _made(Path(config.output_dir))
    model = CheckpointModel(checkpoint, config.model)
    labels = class_labels(config, model.meta)
    size, channels = config.model.image_size, config.model.in_channels
    images = np.random.default_rng(0).standard_normal((batch_size, channels, size, size), np.float32)
    logits = model.logits(images)
    if not np.isfinite(logits).all():
        raise UserError(f"checkpoint {checkpoint} gives logits that are not finite; export an earlier one")
    differences = {}
    for kind in formats:
        path = folder / f"{config.model.name}_{size}_b{batch_size}.{kind}"
        differences[path] = _export(kind, model.network, images, logits, path)
        # MindIR and AIR are called by position.
        names = (INPUT, OUTPUT) if kind == "onnx" else (None, None)
        description = {
            "model": config.model.name,
            "format": kind,
            "input": {"name": names[0], "shape": list(images.shape), "dtype": "float32", "layout": "NCHW"},
            "output": {"name": names[1], "shape": list(logits.shape), "dtype": "float32"},
            "preprocessing": preprocessing(config.data, size, channels),
            "labels": labels,
            "checkpoint": {"file": Path(checkpoint).name, "sha256": sha256(checkpoint)},
            "mindspore": ms.__version__,
            "max_difference": differences[path],
        }
        write_card(path, description)
    return differences


def _check(formats, batch_size, target):
    for kind in formats:
        if kind not in FORMATS:
            raise UserError(
                f"--format '{kind}' is unknown; it takes some of {', '.join(FORMATS)}{did_you_mean(kind, FORMATS)}"
            )
    if "air" in formats and target != "Ascend":
        raise UserError(
            f"AIR is made by MindSpore on an Ascend device, and this is {target}; leave air out of --format, or export "
            "there with --device_target Ascend"
        )
    if batch_size < 1:
        raise UserError(f"--batch_size is {batch_size} but takes at least 1")


def _made(folder):
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot create output folder {folder} ({error.strerror}); choose another with --output_dir"
        ) from error
    return folder


def _export(kind, network, images, logits, path):
    """Write `path` and return its difference from `logits`, what the network makes of `images`."""
    # A network exported twice to ONNX fails; around a new cell it does not.
    cell, example = _Deployed(network), ms.Tensor(images)
    # MindSpore exports to paths of a few ASCII characters only, and may close their folder to others.
    with tempfile.TemporaryDirectory() as scratch, replacing(path) as temporary:
        exported = f"{scratch}/network.{kind}"
        if kind == "onnx":
            export_onnx(cell, example, file_name=exported, input_names=[INPUT], output_names=[OUTPUT])
            model = onnx.load(exported)
            tidy(model)
            onnx.save(model, temporary)
        else:
            ms.export(cell, example, file_name=exported, file_format=kind.upper())
            shutil.copyfile(exported, temporary)
        if kind == "air":
            return None
        runtime = OnnxModel(temporary) if kind == "onnx" else MindirModel(temporary)
        return _difference(runtime.logits(images), logits, path)


def _difference(computed, logits, path):
    difference = float(np.abs(computed - logits).max() / (np.abs(logits).max() or 1))
    # Not `>`, which lets NaN pass.
    if not difference <= TOLERANCE:
        raise WrongExport(
            f"the exported {path.name} differs from the network by {difference:.1e} of the largest logit (allowed: "
            f"{TOLERANCE:.0e}) and was deleted; --device_target CPU rounds least"
        )
    return difference
