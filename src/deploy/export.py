# SPDX-License-Identifier: Apache-2.0
"""Writing a trained network as MindIR, ONNX or AIR; a file gets its name when it has computed what the network does.

network -> folded -> with what clients want around it -> exporter -> graph cleaned and checked -> run -> described
"""

from functools import partial
from pathlib import Path

import mindspore as ms
import numpy as np
import onnx

from src.deploy.atc import atc_refusals
from src.deploy.card import BATCH, INPUT, sha256, write_card
from src.deploy.folding.fold import fold
from src.deploy.mindir import write_mindspore
from src.deploy.onnx.export import onnx_model, with_metadata
from src.deploy.options import Options, check_options
from src.deploy.proof import difference, example_images
from src.deploy.quantize import quantize_and_judge
from src.deploy.running.runtime import CheckpointModel, MindirModel, OnnxModel
from src.deploy.serving import Serving
from src.errors import UserError
from src.tasks import create_task, deployment_of
from src.training.atomic import replacing
from src.training.deployment import WHOLE_NUMBERS, results_of


def export_checkpoint(config, checkpoint, formats, batch_size=1, **wishes):
    """Write a checkpoint as files, each with its description beside it; `Options.file_name` names them.

    MindIR is run in MindSpore, ONNX in onnxruntime, on seeded inputs. AIR is not run: that takes Ascend's converter.

    Args:
        config (Config): the experiment; the files go to its `output_dir`.
        checkpoint: a `.ckpt` file of its training.
        formats (list): some of `FORMATS`.
        batch_size, wishes: what `Options` takes.

    Returns:
        dict: path of each file -> its description. There `max_difference` is the largest difference from what the
        network computes, as a part of the largest number in that, None for AIR; `tolerance` is what was allowed, None
        for int8, whose accuracy is in `int8`, see `quantize_and_judge`. Of ONNX files `atc` says whether CANN's
        converter "reads" it, and "why_not", see `atc_refusals`.

    Raises:
        UserError: an unknown or impossible format, wishes that contradict each other, or a model, checkpoint or folder
            that cannot be used.
        WrongExport: a file that differs by more.
    """
    options, task = Options(batch_size, **wishes), create_task(config)
    check_options(formats, options, config.device.target, task.deployment)
    folder = _made(Path(config.output_dir))
    model = CheckpointModel(checkpoint, task.build())
    description = {"task": config.task, **task.describe(model.meta, model.network)}
    deployment, spec = deployment_of(description), description["preprocessing"]
    # What its networks of another kind give, this one may not.
    check_options(formats, options, config.device.target, deployment)
    if problem := deployment.wrong():
        raise UserError(f"checkpoint {checkpoint} cannot be exported: {problem}")
    inputs, images = example_images(spec, options)
    form = options.form(deployment.outputs)
    expected = model.results(images)
    if not all(np.isfinite(part).all() for part in expected):
        raise UserError(f"checkpoint {checkpoint} gives numbers that are not finite; export an earlier one")
    normalisation = spec if options.preprocess else None
    cards = {}
    for kind in formats:
        path = folder / options.file_name(config.model, kind)
        cards[path] = card = {
            "model": config.model.title,
            "format": kind,
            **_ends(inputs, deployment, options),
            **description,
            "checkpoint": {"file": Path(checkpoint).name, "sha256": sha256(checkpoint)},
            "folded": options.fold,
            "encrypted": options.key is not None,
            "mindspore": ms.__version__,
            "tolerance": options.tolerance,
            "max_difference": None,
        }
        # Built again for each file: exporters leave traces.
        network = CheckpointModel(checkpoint, task.build()).network
        served = deployment.served(fold(network) if options.fold else network, form)
        serve = partial(Serving, served, normalisation)
        with replacing(path) as temporary:
            if kind == "onnx":
                runtime = _write_onnx(serve, inputs, task, options, card, temporary)
            else:
                write_mindspore(kind, serve(), inputs, options, temporary)
                runtime = None if kind == "air" else MindirModel(temporary, options.key)
            if runtime:
                card["max_difference"] = difference(path.name, runtime, inputs, expected, options, deployment)
        write_card(path, card)
    return cards


def _made(folder):
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot create output folder {folder} ({error.strerror}); choose another with --output_dir"
        ) from error
    return folder


def _ends(inputs, deployment, options):
    """Return what a description says of a file's input and output."""
    batch = options.batch_size or BATCH
    layout = "NHWC" if options.preprocess else "NCHW"
    results = [
        {"name": name, "shape": sizes, "dtype": "int32" if name in WHOLE_NUMBERS else options.dtype}
        for name, sizes in deployment.results(options.form(deployment.outputs), batch).items()
    ]
    return {
        "input": {"name": INPUT, "shape": [batch, *inputs.shape[1:]], "dtype": str(inputs.dtype), "layout": layout},
        "output": results if len(results) > 1 else results[0],
    }


def _write_onnx(serve, inputs, task, options, card, path):
    """Write an ONNX file and return it, ready to run; `card` learns how accurate int8 is, and if `atc` reads it."""
    model = onnx_model(serve, inputs, options, [result["name"] for result in results_of(card)])
    if options.quantize:
        model, card["int8"] = quantize_and_judge(model, task, card, options)
    refusals = atc_refusals(model)
    card["atc"] = {"reads": not refusals, "why_not": refusals}
    onnx.save(with_metadata(model, card), path)
    return OnnxModel(path)
