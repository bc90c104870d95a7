# SPDX-License-Identifier: Apache-2.0
"""Tidying an ONNX graph changes what it looks like, never what it computes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, checker, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_graphs import graph, operators, run

from src.deploy.onnx.graph import tidy

_COLUMN = np.arange(2, dtype=np.float32).reshape(2, 1, 1)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["Add", "Mul", "Neg", "Tile", "Constant", "Identity", "Cast"]),
        st.integers(0, 50),
        st.integers(0, 50),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_tidying_keeps_what_a_graph_computes(steps):
    """Whatever mix of constants, copies and computations: the same result, nothing constant left to compute."""
    grid = np.arange(6, dtype=np.float32).reshape(2, 3)
    constants = {"weight": grid, "0-a": grid + 1, "1-same": grid + 1, "2-unused": grid, "3-once": np.array([1, 1])}
    values, nodes = ["image", "weight", "0-a", "1-same"], []
    for number, (kind, left, right) in enumerate(steps):
        operands = [values[left % len(values)], values[right % len(values)]]
        inputs = dict.fromkeys(("Neg", "Identity", "Cast"), operands[:1])
        inputs = {**inputs, "Tile": [operands[0], "3-once"], "Constant": []}.get(kind, operands)
        made = {"Constant": {"value": numpy_helper.from_array(grid + right % 2)}, "Cast": {"to": TensorProto.FLOAT}}
        made = made.get(kind, {})
        values.append(f"{number + 4}-{kind}")
        nodes.append(helper.make_node(kind, inputs, values[-1:], name=f"same/{kind}", **made))
    nodes.append(helper.make_node("Add", [values[-1], "image"], ["logits"]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (2, 3)) for name in ("image", "logits")]
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors),
        opset_imports=[helper.make_opsetid("", 11)],
        ir_version=4,
    )
    expected = ReferenceEvaluator(model).run(None, {"image": grid / 2})[0]
    tidy(model)
    assert_tidy(model)
    np.testing.assert_array_equal(ReferenceEvaluator(model).run(None, {"image": grid / 2})[0], expected)


def assert_tidy(model):
    checker.check_model(model, full_check=True)
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    used = {name for node in graph.node for name in node.input}
    assert set(constants) <= used
    needed = used | {output.name for output in graph.output}
    for node in graph.node:
        assert needed.intersection(node.output)
        assert node.op_type not in ("Constant", "Identity", "Cast") and len(node.output) == 1
        assert node.op_type == "Tile" or not set(node.input) <= set(constants)
    own = [tensor.SerializeToString() for tensor in map(without_name, constants.values()) if tensor]
    assert len(own) == len(set(own))
    assert not any(name[0].isdigit() for name in (*constants, *used))


def without_name(tensor):
    """A constant that is no parameter, without its name."""
    if not tensor.name.startswith("constant_"):
        return None
    copy = TensorProto()
    copy.CopyFrom(tensor)
    copy.name = ""
    return copy


def test_casts_that_change_something_stay():
    """Only a cast to the type a value has already is a copy."""
    nodes = "same = Cast<to=1>(image) whole = Cast<to=7>(same) back = Cast<to=1>(whole) logits = Identity(back)"
    model = tidy(graph("float[2,3] image) => (float[2,3] logits", nodes))
    assert operators(model) == ["Cast", "Cast"]
    np.testing.assert_array_equal(run(model, np.full((2, 3), 1.5, np.float32)), 1)


def test_a_graph_that_only_copies():
    """What goes in and out under two names needs a node."""
    model = tidy(graph("float[2,3] image) => (float[2,3] logits", "copy = Identity(image) logits = Identity(copy)"))
    assert operators(model) == ["Identity"]
    assert run(model, np.ones((2, 3), np.float32)).all()


def test_only_equal_parts_need_no_sizes():
    """Sizes are left out where they are the default, and what was known of values by their old names is dropped."""
    nodes = "a, b = Split<axis=1, split=[SIZES]>(image) c = Neg(a) d = Neg(b) logits = Concat<axis=1>(c, d)"
    for sizes, named in (("2,2", 1), ("1,3", 2)):
        model = graph("float[2,4] image) => (float[2,4] logits", nodes.replace("SIZES", sizes))
        model.graph.value_info.append(helper.make_tensor_value_info("Split_0_0", TensorProto.INT64, (7,)))
        split = tidy(model).graph.node[0]
        assert split.op_type == "Split" and len(split.attribute) == named
        checker.check_model(model, full_check=True)
        np.testing.assert_array_equal(run(model, np.eye(2, 4, dtype=np.float32)), -np.eye(2, 4))


def test_constants_by_the_opset_of_their_model():
    """Squeeze took its axes otherwise before opset 13; by a newer one all axes of one would go."""
    model = graph(
        "float[2,3] image) => (float[2,3] logits", "a = Squeeze<axes=[2]>(b) logits = Mul(image, a)", b=_COLUMN
    )
    tidy(model)
    assert operators(model) == ["Mul"]
    np.testing.assert_array_equal(run(model, np.ones((2, 3), np.float32)), [[0] * 3, [1] * 3])


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
def test_stacks_are_joined(axis):
    """As MindSpore's exporter writes `ops.stack`, by a sequence, which Ascend's converter does not have."""
    nodes = f"s = SequenceConstruct(image, one) logits = ConcatFromSequence<axis={axis}, new_axis=1>(s)"
    sizes = np.stack([np.zeros((2, 3))] * 2, axis).shape
    one, image = np.arange(6, dtype=np.float32).reshape(2, 3), np.full((2, 3), 7, np.float32)
    model = graph(f"float[2,3] image) => (float[{','.join(map(str, sizes))}] logits", nodes, one=one)
    tidy(model)
    assert set(operators(model)) == {"Unsqueeze", "Concat"}
    np.testing.assert_array_equal(run(model, image), np.stack([image, one], axis))
