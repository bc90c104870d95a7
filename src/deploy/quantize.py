# SPDX-License-Identifier: Apache-2.0
"""int8 in place of float32 in the convolutions and linear layers of an ONNX model: a third of its size.

onnxruntime's static quantisation runs the model on calibration images to see which values occur, then puts
QuantizeLinear and DequantizeLinear around each layer, with a scale for each output channel of its weights. Grouped
convolutions and products of two computed values, as in attention, stay float32.
"""

import sys
import tempfile

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quant_pre_process, quantize_static

from src.data.dataset import iterate
from src.deploy.onnx.graph import constants_of
from src.deploy.proof import WrongExport
from src.deploy.running.images import find_images
from src.deploy.running.predict import Predictor
from src.deploy.running.runtime import OnnxModel
from src.device import World
from src.errors import UserError
from src.tasks import deployment_of

LAYERS = ("Conv", "Gemm", "MatMul")
# More images hardly change the ranges of values; they are taken from all over the folder.
CALIBRATION_IMAGES = 300
# Percentage of the images, or of their pixels, for which the class has to stay the same.
LEAST_AGREEMENT = 90
# Each result of each layer is kept for a batch.
_BATCH_SIZE = 2


def quantize_and_judge(model, task, card, options):
    """Return `model` in int8, and how accurate it is.

    Args:
        model (onnx.ModelProto): float32, opset 17 or more.
        task (Task): knows the evaluation images.
        card (dict): the description of the file.
        options (Options): of the file.

    Returns:
        tuple: the model, and a dict: how many `images` were judged before and after, and for what percentage of them,
        or of their pixels, the class is the same, `agreement`. They are evaluation images, with `measure`, the task's,
        `before` and `after` in percent; where there are none, those of `calibration_dir`.

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
            _Calibration(model.graph.input[0].name, card, options),
            nodes_to_quantize=_layers(model.graph),
            per_channel=True,
            # Weights of 7 bits: with 8, a CPU without VNNI cuts off the sum of two products.
            reduce_range=True,
            # Where a CPU has VNNI, as accurate as signed numbers and faster.
            activation_type=QuantType.QUInt8,
            # Of 256 values, several logits would be the largest; behind other linear layers is float32 anyway.
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm"]},
        )
        models = [_Model(OnnxModel(path).results, card, options) for path in (prepared, quantized)]
        try:
            judges = [task.judge_file(model, "the network") for model in models]
        except UserError as error:
            print(f"int8 is not judged by evaluation images: {error}", file=sys.stderr)
            figures = _liken(models, options)
        else:
            figures = _judge(task, judges, deployment_of(card).sample)
        if figures["agreement"] < LEAST_AGREEMENT:
            raise WrongExport(
                f"in int8 the network finds another class for {100 - figures['agreement']:.1f} % of "
                f"{figures['images']} images (allowed: {100 - LEAST_AGREEMENT} %), so it was not written; give other "
                "images in --calibration_dir, or --dtype float16"
            )
        return onnx.load(quantized), figures


def _layers(graph):
    """Return the names of the nodes that have weights; onnxruntime has no fast grouped convolution of int8."""
    constants = {name for name, array in constants_of(graph).items() if not _averages(array)}
    groups = {
        node.name: attribute.i for node in graph.node for attribute in node.attribute if attribute.name == "group"
    }
    return [
        node.name
        for node in graph.node
        if node.op_type in LAYERS and constants.intersection(node.input) and groups.get(node.name, 1) == 1
    ]


def _averages(array):
    """Whether a constant is shares of pixels in others, see `src.ops.resize`: a few bits would blur maps."""
    is_matrix = array.ndim == 2 and array.dtype == np.float32 and array.min() >= 0
    return is_matrix and any(np.allclose(array.sum(axis), 1, atol=1e-5) for axis in (0, 1))


class _Model:
    """What computes results, as `Task.judge_file` takes it."""

    def __init__(self, results, card, options):
        self.results, self.card, self.batch_size = results, card, options.batch_size


class _Calibration(CalibrationDataReader):
    """Gives each batch that a network of this description is given for the images of the calibration.

    Args:
        name (str): of the network's input.
        card (dict), options (Options): of the file.
    """

    def __init__(self, name, card, options):
        self._batches = self._given(name, card, options)

    def _given(self, name, card, options):
        deployment, given = deployment_of(card), []

        def results(images):
            given.append({name: images})
            sizes = deployment.results(options.form(deployment.outputs), len(images)).values()
            return [np.zeros(shape, np.float32) for shape in sizes]  # as good as any

        for _ in _answers([_Model(results, card, options)], options):
            yield from given
            given.clear()

    def get_next(self):
        return next(self._batches, None)


def _answers(models, options):
    """Yield, for each image of the calibration, what each model finds in it."""
    count = options.batch_size or _BATCH_SIZE
    predictors = [Predictor(model, deployment_of(model.card), count, bool(options.batch_size)) for model in models]
    paths = list(find_images(options.calibration_dir))
    most = min(CALIBRATION_IMAGES, predictors[0].deployment.sample)
    batches = predictors[0].read(paths[:: -(-len(paths) // most)])
    for _, images in batches:
        deployments = ((each.deployment, each.deployment.answers(each.run, *images)) for each in predictors)
        yield from zip(*([deployment.found(answer) for answer in answers] for deployment, answers in deployments))
    if batches.unreadable:
        raise UserError(f"--calibration_dir: {batches.unreadable[0]}")


def _liken(models, options):
    """Return how often two models find the same in the images of the calibration."""
    same = [np.mean(one == two) for one, two in _answers(models, options)]
    return {"images": len(same), "agreement": float(100 * np.mean(same))}


def _judge(task, judges, sample):
    """Return how often the networks of two judges find the same in about `sample` evaluation images, and how well."""
    for note in task.notes:
        print(note, file=sys.stderr)
    for judge in judges:
        judge.step.set_train(False)
        judge.compile()
        judge.begin()
    every, same = -(-task.images["val"] // sample), []
    for batch in iterate(task.batches("val", World(0, every))):
        one, two = (judge.add(*batch) for judge in judges)
        same.append([np.sum(one == two), np.size(one)])
    before, after = (judge.result(World()) for judge in judges)
    right, whole = np.sum(same, axis=0)
    return {
        "images": before["samples"],
        "agreement": float(100 * right / whole),
        "measure": task.best_name,
        "before": before[task.best],
        "after": after[task.best],
    }
