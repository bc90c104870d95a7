# SPDX-License-Identifier: Apache-2.0
"""Exported files that cost nothing to make: one linear layer as ONNX, in every form a description can have."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from src.deploy.card import write_card

CLASSES = ["class0", "class1", "class2"]
SIZE, MEAN, STD = 8, 0.5, 0.25
SPEC = {
    "image_size": [SIZE, SIZE],
    "resize": SIZE,
    "interpolation": "bilinear",
    "orientation": "ignore",
    "mean": [MEAN],
    "std": [STD],
    "in_channels": 1,
}
_TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}


def linear_weights():
    """(64, 3), (3,): logits that tell grey images apart by their brightness, but not without mistakes."""
    rng = np.random.default_rng(0)
    centres = (np.array([0.1, 0.9, 0.75]) - MEAN) / STD
    return 2 * centres / SIZE**2 + 0.02 * rng.standard_normal((SIZE**2, 3)), -(centres**2)


def write_onnx(path, dtype="float32", softmax=False, batch=4, change_card=lambda card: card, **constants):
    """Write the layer and its description; pixels are taken where `dtype` is "uint8". Returns `path`."""
    weights, bias = linear_weights()
    inside = "float16" if dtype == "float16" else "float32"
    nodes, constants = [], {"weight": weights, "bias": bias, **constants}
    layout, shape = ("NHWC", [batch, SIZE, SIZE, 1]) if dtype == "uint8" else ("NCHW", [batch, 1, SIZE, SIZE])
    source = "image"
    if dtype == "uint8":
        constants |= {"scale": 1 / (255 * STD), "offset": MEAN / STD}
        nodes += [
            helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["float", "scale"], ["scaled"]),
            helper.make_node("Sub", ["scaled", "offset"], ["normal"]),
        ]
        source = "normal"
    result = "probabilities" if softmax else "logits"
    nodes += [
        helper.make_node("Flatten", [source], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight", "bias"], ["linear" if softmax else "logits"]),
    ]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["linear"], [result], axis=1))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", _TYPES[dtype], shape)],
        [helper.make_tensor_value_info(result, _TYPES[inside], [batch, 3])],
        [numpy_helper.from_array(np.asarray(array, inside), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
    onnx.save(model, path)
    describe(path, shape, dtype, layout, result, inside, change_card)
    return path


def describe(
    path, shape, dtype="float32", layout="NCHW", result="logits", inside="float32", change_card=lambda card: card
):
    """Write the description of a file of one of these forms."""
    card = {
        "input": {"name": "image", "shape": shape, "dtype": dtype, "layout": layout},
        "output": {"name": result, "shape": [shape[0], 3], "dtype": inside},
        "preprocessing": SPEC,
        "labels": CLASSES,
    }
    write_card(path, change_card(card))
