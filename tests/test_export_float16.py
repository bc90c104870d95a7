# SPDX-License-Identifier: Apache-2.0
"""float16 graphs have no float32 left, and compute the same to its precision."""

import numpy as np
from onnx import TensorProto, checker, helper
from onnx_graphs import float32, graph, run

from src.deploy.onnx.float16 import to_float16
from src.deploy.onnx.graph import tidy


def test_everything_becomes_float16():
    """Weights, casts, input and output; whole numbers stay what they are."""
    nodes = "pixels = Cast<to=1>(image) rows = Reshape(pixels, shape) logits = MatMul(rows, weight)"
    constants = {"shape": np.array([2, 3]), "weight": float32(3, 3)}
    model = graph("uint8[2,3,1] image) => (float[2,3] logits", nodes, 17, **constants)
    image = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    expected = run(model, image)
    half = to_float16(tidy(model))
    checker.check_model(half, full_check=True)
    kinds = {tensor.data_type for tensor in half.graph.initializer}
    assert kinds == {TensorProto.INT64, TensorProto.FLOAT16}
    assert helper.get_node_attr_value(half.graph.node[0], "to") == TensorProto.FLOAT16
    result = run(half, image)
    assert result.dtype == np.float16
    np.testing.assert_allclose(result, expected, rtol=2e-3, atol=2e-3)
