# SPDX-License-Identifier: Apache-2.0
"""Tidying an ONNX graph changes what it looks like, never what it computes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, checker, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from src.deploy.onnx_graph import tidy

STEPS = st.lists(
    st.tuples(st.sampled_from(["Add", "Mul", "Neg", "Tile", "Constant"]), st.integers(0, 50), st.integers(0, 50)),
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
        inputs = {"Neg": operands[:1], "Tile": [operands[0], "3-once"], "Constant": []}.get(kind, operands)
        made = {"value": numpy_helper.from_array(grid + right % 2)} if kind == "Constant" else {}
        values.append(f"{number + 4}-{kind}")
        nodes.append(helper.make_node(kind, inputs, values[-1:], name=f"same/{kind}", **made))
    nodes.append(helper.make_node("Add", [values[-1], "image"], ["logits"]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (2, 3)) for name in ("image", "logits")]
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=4)
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
        assert node.op_type != "Constant" and len(node.output) == 1
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
