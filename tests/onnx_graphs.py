# SPDX-License-Identifier: Apache-2.0
"""Small ONNX graphs written by hand, and running them."""

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator


def graph(signature, nodes, opset=11, **constants):
    """Return a checked model: `graph("float[2,3] image) => (float[2,3] logits", "logits = Neg(image)", weight=array)`.

    `nodes` is in ONNX's textual syntax.
    """
    text = f'<ir_version: 8, opset_import: ["" : {opset}]> g ({signature}) {{ {nodes} }}'
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model, image):
    """Return what a model makes of one array."""
    return ReferenceEvaluator(model).run(None, {model.graph.input[0].name: image})[0]


def operators(model):
    return [node.op_type for node in model.graph.node]


def float32(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
