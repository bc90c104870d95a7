# SPDX-License-Identifier: Apache-2.0
"""Ascend, as far as it can be told without one: MindSpore registers an Ascend kernel for every primitive.

The Cells have the form they take on an Ascend. Their graphs are those of MindSpore's front end on a CPU, and none of
them is run: what MindSpore rewrites later for Ascend, whether a kernel takes the shapes and types it is given, and what
it computes, is not said here.
"""

import json
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn, ops
from mindspore.train.mind_ir_pb2 import ModelProto, TensorProto

from src.config import DeviceConfig, LossConfig, OptimizerConfig
from src.device import World
from src.models import create_model
from src.ops.drop_path import DropPath
from src.tasks.class_judge import EvaluationStep
from src.training.ema import Ema
from src.training.losses import create_loss
from src.training.optimizer import create_optimizer
from src.training.precision import create_scaler, mixed_precision
from src.training.step import TrainStep

REGISTERED = set(json.loads(Path(__file__).with_name("ascend_primitives.json").read_text())["primitives"])
# Calls of a graph by a graph.
STRUCTURE = {"Partial", "Switch"}
# MindSpore's passes for Ascend write it as others, which are registered: AdamApplyOneWithDecayAssign and Sub.
REWRITTEN = {"AdamWeightDecay"}
MOST_AXES = 8
SMALL = {
    "resnet26": {"depths": [1, 1, 1, 1], "width": 8},
    "san10": {"depths": [1, 1, 1, 1, 1], "width": 32},
    "pvt_tiny": {"depths": [1, 1, 1, 1], "width": 8},
    "swin_tiny": {"depths": [2, 1, 1, 1], "width": 16, "patch": 2, "heads": 2, "window": 4},
}


@pytest.fixture(autouse=True)
def graphs_for_ascend(built_for):
    ms.set_context(mode=ms.GRAPH_MODE)
    built_for("Ascend")


def small(name):
    options = SMALL[name.removeprefix("acmix_")]
    return create_model(name, num_classes=10, image_size=32, drop_path_rate=0.1, **options)


class Gradients(nn.Cell):
    """The part of a training step that depends on the network: the loss and the gradients of all parameters."""

    def __init__(self, network):
        super().__init__(auto_prefix=False)
        self.network, self.loss = network, create_loss(LossConfig())
        self.value_and_gradients = ops.value_and_grad(self.forward, None, ms.ParameterTuple(network.trainable_params()))
        self.set_train()

    def forward(self, image, label):
        return self.loss(self.network(image), label)

    def construct(self, image, label):
        return self.value_and_gradients(image, label)


class Net(nn.Cell):
    """What a training step tells apart: weights, small parameters, statistics of a norm, chance."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.pool = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.MaxPool2d(2, 2)
        self.drop_path, self.fc = DropPath(0.1), nn.Dense(4, 10)

    def construct(self, x):
        return self.fc(self.drop_path(self.pool(self.norm(self.conv(x)))).mean((2, 3)))


def outputs(node):
    """Yield each tensor that a node gives, as its type and shape."""

    def tensors(attribute):
        yield from attribute.tensors
        for value in attribute.values:
            yield from tensors(value)

    for attribute in node.attribute:
        yield from tensors(attribute)


def complaints(cell, path):
    """Return what speaks against the graph of a Cell of images and labels, a few words for each reason."""
    # Exported, not compiled: that would ask for CPU kernels, and there are none of bfloat16.
    image, label = ms.Tensor(np.zeros((4, 3, 32, 32), np.float32)), ms.Tensor(np.zeros(4, np.int32))
    ms.export(cell, image, label, file_name=str(path / "graph"), file_format="MINDIR")
    model = ModelProto()
    model.ParseFromString((path / "graph.mindir").read_bytes())
    # What refers to no primitive is a constant or calls another graph.
    primitives = {f"REF::{primitive.name}": primitive.op_type for primitive in model.primitives}
    nodes = [node for graph in (model.graph, *model.functions) for node in graph.node]
    found = [("Parameter", tensor) for tensor in model.graph.parameter]
    found += [(primitives.get(node.op_type, "Constant"), tensor) for node in nodes for tensor in outputs(node)]
    used = {primitives[node.op_type] for node in nodes if node.op_type in primitives}
    assert len(used) > 10 and len(found) > len(nodes) / 2

    # A view is a tensor in the memory of another one.
    unknown = {name for name in used - REGISTERED - STRUCTURE - REWRITTEN if not name.endswith("View")}
    reasons = {f"{name} is not registered" for name in unknown}
    for name, tensor in found:
        if tensor.data_type == TensorProto.DOUBLE:
            reasons.add(f"{name} in float64")
        if len(tensor.dims) > MOST_AXES:
            reasons.add(f"{name} of {len(tensor.dims)} axes")
        # The results of these and of their gradients have the type of what goes in.
        if tensor.data_type == TensorProto.BFLOAT16 and name.startswith(("MaxPool", "BatchNorm")):
            reasons.add(f"{name} in bfloat16")
    return sorted(reasons)


@pytest.mark.parametrize(
    ("name", "level", "dtype"),
    [
        ("acmix_resnet26", "O0", "float16"),
        ("acmix_san10", "O2", "float16"),
        ("acmix_pvt_tiny", "O0", "float16"),
        ("acmix_swin_tiny", "O2", "float16"),
    ],
)
def test_evaluation(name, level, dtype, tmp_path):
    """Protects the evaluation of each family from what Ascend is known not to have; ACmix holds the plain operator."""
    step = EvaluationStep(mixed_precision(small(name), level, dtype)).set_train(False)
    assert complaints(step, tmp_path) == []


@pytest.mark.parametrize("name", [f"acmix_{name}" for name in SMALL])
def test_gradients(name, tmp_path):
    """Protects the training of each family, in the type with the most exceptions."""
    gradients = Gradients(mixed_precision(small(name), "O2", "bfloat16"))
    assert complaints(gradients, tmp_path) == []


@pytest.mark.parametrize(
    ("level", "dtype", "options"),
    [
        ("O0", "float16", {"name": "momentum", "clip_norm": 1.0}),
        ("O2", "float16", {"name": "adamw", "micro_batches": 2}),
        ("O2", "bfloat16", {"name": "lamb", "clip_norm": 1.0, "ema_decay": 0.9}),
    ],
)
def test_training_step(level, dtype, options, tmp_path):
    """Protects what a step does around any network: each optimiser, scaling, clipping, parts of a batch, averages."""
    network, recipe = Net(), OptimizerConfig(**options)
    forward = mixed_precision(network, level, dtype)
    optimizer = create_optimizer(network, recipe, np.full(10, 0.5, np.float32))
    ema = Ema(network, recipe.ema_decay) if recipe.ema_decay else None
    scaler = create_scaler(DeviceConfig(target="Ascend", amp_level=level, amp_dtype=dtype, loss_scale=0.0))
    loss, micro_batches = create_loss(LossConfig()), recipe.micro_batches
    step = TrainStep(forward, loss, optimizer, World(), scaler, recipe.clip_norm, micro_batches, ema)
    if scaler:
        # Only parameters of Cells are exported.
        for parameter in (scaler.scale_value, scaler.counter):
            step.insert_param_to_cell(parameter.name, parameter)
    assert complaints(step, tmp_path) == []


class Bad(nn.Cell):
    """A network with one thing in it that Ascend does not have."""

    def __init__(self, flaw):
        super().__init__()
        self.flaw, self.net, self.pool = flaw, Net(), ops.MaxPool(2, 2)

    def construct(self, image, label):
        if self.flaw == "BesselJ0 is not registered":
            image = ops.bessel_j0(image)
        if self.flaw == "Cast in float64":
            image = (image.astype(ms.float64) + 1).astype(ms.float32)
        if self.flaw == "Reshape of 9 axes":
            image = ops.relu(image.reshape(4, 3, 2, 2, 2, 2, 2, 4, 8)).reshape(4, 3, 32, 32)
        if self.flaw == "MaxPool in bfloat16":
            image = self.pool(image.astype(ms.bfloat16)).astype(ms.float32)
        return self.net(image)


@pytest.mark.parametrize(
    "flaw", ["BesselJ0 is not registered", "Cast in float64", "Reshape of 9 axes", "MaxPool in bfloat16"]
)
def test_what_is_not_there_is_found(flaw, tmp_path):
    """Protects the tests above from passing whatever the graphs hold."""
    assert flaw in complaints(Bad(flaw), tmp_path)
