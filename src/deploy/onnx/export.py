# SPDX-License-Identifier: Apache-2.0
"""From a network to an ONNX model: MindSpore's exporter, and what the model goes through afterwards."""

import json
import tempfile

import mindspore as ms
import numpy as np
import onnx
from mindspore.onnx import export
from onnx import checker, helper, shape_inference, version_converter

from src.deploy.card import BATCH, INPUT
from src.deploy.onnx.batch import open_batch
from src.deploy.onnx.float16 import to_float16
from src.deploy.onnx.for_lite import suit_lite
from src.deploy.onnx.graph import rename, tidy
from src.deploy.onnx.operators import name_operators
from src.deploy.onnx.pads import write_pads
from src.errors import UserError
from src.ops.resize import by_products

# Numbers of images of the two exports that make a model for any number. One image would allow simplifications.
_TWO_BATCHES = (2, 3)


def onnx_model(serve, images, options, names=()):
    """Return the ONNX model of a network, checked for validity and not yet run.

    Args:
        serve: without arguments, returns a new `Serving` of the network; exporting one twice fails.
        images (numpy array): what it takes, as many as the file shall take, or 3 where it takes any number.
        options (Options): of the file.
        names (sequence): of the results; empty: whatever the exporter calls them.

    Raises:
        UserError: the graph cannot be made to take any number of images.
        onnx.checker.ValidationError, onnx.shape_inference.InferenceError: the result is no valid model.
    """
    if images.dtype == np.float16:
        images = images.astype(np.float32)
    sizes = [options.batch_size] if options.batch_size else _TWO_BATCHES
    # All while shapes are known: later, converters add nodes that find them out.
    models = [_renewed(tidy(_exported(serve(), images[:size], names)), options.onnx_opset) for size in sizes]
    try:
        model = models[0] if options.batch_size else tidy(open_batch(*models, BATCH))
    except ValueError as error:
        raise UserError(f"--dynamic_batch does not work with this network ({error}); give a --batch_size") from error
    if options.dtype == "float16":
        model = to_float16(model)
    return checked(model)


def _exported(cell, images, names):
    # MindSpore exports to paths of a few ASCII characters only, and closes their folder to others.
    with tempfile.TemporaryDirectory() as scratch:
        path = f"{scratch}/network.onnx"
        with by_products():
            export(cell, ms.Tensor(images), file_name=path, input_names=[INPUT])
        model = onnx.load(path)
    names = names or [value.name for value in model.graph.output]
    # By the exporter itself, the node before the last one would get the name where that is a Cast.
    rename(model.graph, {value.name: name for value, name in zip(model.graph.output, names)})
    for value, name in zip(model.graph.output, names, strict=True):
        value.name = name
    return model


def _renewed(model, opset):
    return tidy(suit_lite(write_pads(name_operators(tidy(version_converter.convert_version(model, opset))))))


def checked(model):
    """Return a model that is valid and whose shapes agree from the input to the output."""
    checker.check_model(model, full_check=True)
    shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    return model


def with_metadata(model, description):
    """Put what a user of a model needs to know into it, in place, and return it.

    Args:
        model (onnx.ModelProto): any.
        description (dict): what is written beside the file, see `src.deploy.card`.
    """
    preprocessing = description["preprocessing"]
    helper.set_model_props(
        model,
        {
            "model": description["model"],
            "labels": json.dumps(description["labels"], ensure_ascii=False),
            "mean": json.dumps(preprocessing["mean"]),
            "std": json.dumps(preprocessing["std"]),
            "preprocessing": json.dumps(preprocessing),
            "version": f"MindSpore {description['mindspore']}",
            "checkpoint_sha256": description["checkpoint"]["sha256"],
        },
    )
    return model
