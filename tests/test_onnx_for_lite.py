# SPDX-License-Identifier: Apache-2.0
"""ONNX graphs without what MindSpore Lite 2.0 computes wrongly."""

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from src.deploy.onnx.for_lite import suit_lite
from src.deploy.onnx.graph import tidy


def transposed(shape, order):
    """A model of one Transpose."""
    ends = [shape, [shape[axis] for axis in order]]
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, end) for name, end in zip("xy", ends)]
    graph = helper.make_graph([helper.make_node("Transpose", ["x"], ["y"], perm=order)], "g", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)


def transposes(model):
    return [list(node.attribute[0].ints) for node in model.graph.node if node.op_type == "Transpose"]


@given(st.permutations(range(1, 7)), st.lists(st.integers(1, 3), min_size=6, max_size=6))
def test_no_transpose_of_many_axes_is_left(order, sizes):
    """Lite permutes more than six axes wrongly; two steps of fewer give the same."""
    shape, order = [2, *sizes], [0, *order]
    model = suit_lite(transposed(shape, order))
    onnx.checker.check_model(model, full_check=True)
    assert all(len(perm) <= 6 for perm in transposes(model))
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    (y,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    assert np.array_equal(y, x.transpose(order))


def test_a_slice_along_no_axis_is_dropped():
    """MindSpore writes it for x[:, :]; Lite 2.0 fails on it when the network runs."""
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 3]) for name in ("x", "y")]
    nothing = numpy_helper.from_array(np.zeros(0, np.int64), "nothing")
    nodes = [helper.make_node("Slice", ["x", *["nothing"] * 4], ["all"]), helper.make_node("Relu", ["all"], ["y"])]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [nothing])
    model = tidy(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6))
    assert [node.op_type for node in model.graph.node] == ["Relu"]


def convolved(kernel, group, with_bias=True, **attributes):
    """A model of one convolution of (2, 3, 4, 4), and its weights."""
    weights = {"kernel": np.ones(kernel, np.float32) / 3, "bias": np.arange(kernel[0], dtype=np.float32)}
    names = ["kernel", "bias"][: 1 + with_bias]
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", [2, 3, 4, 4]), ("y", None))
    ]
    node = helper.make_node("Conv", ["x", *names], ["y"], group=group, **attributes)
    initializers = [numpy_helper.from_array(weights[name], name) for name in names]
    graph = helper.make_graph([node], "g", values[:1], values[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)


@pytest.mark.parametrize("with_bias", [False, True])
def test_a_convolution_that_only_scales_is_a_product(with_bias):
    """Lite 2.0 cannot load folded SAN with it; with and without a bias the result is the same."""
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32)
    model = convolved((3, 1, 1, 1), 3, with_bias)
    (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    model = suit_lite(model)
    assert [node.op_type for node in model.graph.node] == ["Mul", "Add"][: 1 + with_bias]
    (y,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    assert np.abs(y - expected).max() <= 1e-6


@pytest.mark.parametrize(
    ("kernel", "group", "attributes"),
    [
        ((6, 3, 1, 1), 1, {}),
        ((3, 1, 3, 3), 3, {}),
        ((3, 1, 1, 1), 3, {"strides": [2, 2]}),
        ((3, 1, 1, 1), 3, {"pads": [1] * 4}),
    ],
)
def test_other_convolutions_stay(kernel, group, attributes):
    """One that mixes channels, sees neighbours, leaves out pixels or adds some is no product."""
    model = suit_lite(convolved(kernel, group, **attributes))
    assert [node.op_type for node in model.graph.node] == ["Conv"]


@pytest.mark.parametrize(("shape", "order"), [((1, 2, 3, 2, 3, 2, 3), [0, 3, 5, 2, 1, 4, 6]), ((2, 3, 4), [2, 1, 0])])
def test_what_lite_can_do_stays(shape, order):
    """One image at a time, or few axes: no step more than there was."""
    model = transposed(shape, order)
    before = model.SerializeToString()
    assert suit_lite(model).SerializeToString() == before


@pytest.mark.parametrize("with_unread", [False, True])
def test_weights_are_shared_where_lite_reads_nothing(with_unread):
    """Lite 2.0 computes numbers of 1e10 where two convolutions have the same weights; a file that it refuses for other
    reasons stays small."""
    model = convolved((3, 3, 1, 1), 1)
    nodes = [helper.make_node("Conv", ["y", "kernel", "bias"], ["z"])]
    if with_unread:
        nodes.append(helper.make_node("NonMaxSuppression", ["boxes", "scores"], ["places"]))
    model.graph.node.extend(nodes)
    kernels = [node.input[1] for node in suit_lite(model).graph.node if node.op_type == "Conv"]
    assert len(set(kernels)) == 2 - with_unread
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    np.testing.assert_array_equal(*(weights[name] for name in kernels))
