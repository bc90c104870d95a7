# SPDX-License-Identifier: Apache-2.0
"""int8 in place of float32 in the convolutions and linear layers of an ONNX model: a third of its size.

onnxruntime's static quantisation runs the model on calibration images to see which values occur, then puts
QuantizeLinear and DequantizeLinear around each layer, with a scale for each output channel of its weights. Grouped
convolutions and products of two computed values, as in attention, stay float32.
"""

import dataclasses
import os
import sys
import tempfile

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quant_pre_process, quantize_static

from src.data.dataset import iterate
from src.data.image_folder import list_split
from src.deploy.proof import WrongExport
from src.deploy.running.images import ImageBatches, find_images
from src.deploy.running.runtime import OnnxModel
from src.device import World
from src.errors import UserError
from src.tasks.classification import Classification

LAYERS = ("Conv", "Gemm", "MatMul")
# More images hardly change the ranges of values, or the accuracy; both take theirs from all over the folder.
CALIBRATION_IMAGES, EVALUATION_IMAGES = 300, 2000
# Percentage of the images for which the best class has to stay the same.
LEAST_AGREEMENT = 90
# Each result of each layer is kept for a batch.
_BATCH_SIZE = 2


def quantize_and_judge(model, config, spec, classes, options):
    """Return `model` in int8, and how accurate it is.

    Args:
        model (onnx.ModelProto): float32, opset 17 or more.
        config (Config): says where evaluation images are.
        spec (dict): how images are prepared, see `src.data.preprocessing`.
        classes (Classes): of the network.
        options (Options): of the file.

    Returns:
        tuple: the model, and a dict: how many `images` were classified before and after, and for what percentage of
        them the best class is the same, `agreement`. They are evaluation images, with top-1 `before` and `after` in
        percent; where there are none, those of `calibration_dir`.

    Raises:
        UserError: images cannot be used.
        WrongExport: `agreement` is below `LEAST_AGREEMENT`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        prepared, quantized = f"{scratch}/float32.onnx", f"{scratch}/int8.onnx"
        quant_pre_process(model, prepared, skip_optimization=True, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantized,
            _Calibration(model.graph.input[0].name, _calibration_batches(spec, options)),
            nodes_to_quantize=_layers(model.graph),
            per_channel=True,
            # Weights of 7 bits: with 8, a CPU without VNNI cuts off the sum of two products.
            reduce_range=True,
            # Where a CPU has VNNI, as accurate as signed numbers and faster.
            activation_type=QuantType.QUInt8,
            # Of 256 values, several logits would be the largest; behind other linear layers is float32 anyway.
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm"]},
        )
        models = OnnxModel(prepared), OnnxModel(quantized)
        is_labelled = _has_evaluation_images(config)
        batches = _evaluation_batches(config, classes, options) if is_labelled else _calibration_batches(spec, options)
        before, after, agreement, images = _compare(*models, batches)
        if agreement < LEAST_AGREEMENT:
            raise WrongExport(
                f"in int8 the network finds another class for {100 - agreement:.1f} % of {images} images (allowed: "
                f"{100 - LEAST_AGREEMENT} %), so it was not written; give other images in --calibration_dir, or "
                "--dtype float16"
            )
        figures = {"images": images, "agreement": agreement}
        return onnx.load(quantized), {**figures, "before": before, "after": after} if is_labelled else figures


def _layers(graph):
    """Return the names of the nodes that have weights; onnxruntime has no fast grouped convolution of int8."""
    constants = {tensor.name for tensor in graph.initializer}
    groups = {
        node.name: attribute.i for node in graph.node for attribute in node.attribute if attribute.name == "group"
    }
    return [
        node.name
        for node in graph.node
        if node.op_type in LAYERS and constants.intersection(node.input) and groups.get(node.name, 1) == 1
    ]


class _Calibration(CalibrationDataReader):
    def __init__(self, name, batches):
        self.name, self.batches = name, batches

    def get_next(self):
        images, _ = next(self.batches, (None, None))
        return None if images is None else {self.name: images}


def _calibration_batches(spec, options):
    """Yield arrays of as many images as the file takes, the last one filled up; each with -1 for each true image."""
    paths = list(find_images(options.calibration_dir))
    paths = paths[:: -(-len(paths) // CALIBRATION_IMAGES)]
    batches = ImageBatches(paths, spec, options.batch_size or _BATCH_SIZE, os.cpu_count(), options.preprocess)
    for names, images in batches:
        yield _filled_up(images, options.batch_size), np.full(len(names), -1)
    if batches.unreadable:
        raise UserError(f"--calibration_dir: {batches.unreadable[0]}")


def _has_evaluation_images(config):
    try:
        return list_split(config.data, "val").images > 0
    except UserError:
        return False


def _evaluation_batches(config, classes, options):
    """Yield arrays of as many images as the file takes, the last one filled up; each with the classes."""
    data = dataclasses.replace(config.data, batch_size=options.batch_size or _BATCH_SIZE)
    task = Classification(dataclasses.replace(config, data=data), as_pixels=options.preprocess)
    task.open_to_judge(classes.to_record(), "the network")
    for note in task.notes:
        print(note, file=sys.stderr)
    every = -(-task.images["val"] // EVALUATION_IMAGES)
    dataset = task.batches("val", World(0, every))
    for images, labels in iterate(dataset):
        yield _filled_up(images.asnumpy(), options.batch_size), labels.asnumpy()


def _filled_up(images, batch_size):
    lacking = (batch_size or len(images)) - len(images)
    return np.pad(images, [(0, lacking)] + [(0, 0)] * (images.ndim - 1), mode="edge")


def _compare(before, after, batches):
    """Return top-1 of two models and how often they agree, in percent, and of how many images."""
    rows = []
    for images, labels in batches:
        one, two = (model.logits(images).argmax(1)[: len(labels)] for model in (before, after))
        rows.append([one == labels, two == labels, one == two])
    rows = np.concatenate(rows, axis=1)
    return (*map(float, 100 * rows.mean(1)), rows.shape[1])
