# SPDX-License-Identifier: Apache-2.0
"""Taking out of an ONNX graph what MindSpore's exporter leaves in it."""

import re

from onnx import checker, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

# MindSpore numbers the values it names itself; the parameters keep the names they have in the checkpoint.
_NUMBERED = re.compile(r"\d+")

# Computed beforehand, their results would make the file larger.
_COPYING = ("Tile", "Expand")


def tidy(model):
    """Clean an exported graph in place; it computes the same.

    Constants become initializers, each there once and only if used; nodes that compute constants from constants give
    way to their results; nodes that no output needs are gone; nodes, and values named by MindSpore, are called by
    their operator.

    Args:
        model (onnx.ModelProto): as `mindspore.onnx.export` wrote it.

    Raises:
        onnx.checker.ValidationError: the result is no valid model.
    """
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = _fold(graph.node, constants, model.opset_import[0].version)
    nodes = _needed(nodes, {output.name for output in graph.output})
    used = {name for node in nodes for name in node.input}
    constants = {name: array for name, array in constants.items() if name in used}
    new_name = _merged(constants)
    for number, node in enumerate(nodes):
        node.name = f"{node.op_type}_{number}"
        outputs = [name for name in node.output if _NUMBERED.match(name)]
        for k, name in enumerate(outputs):
            new_name[name] = node.name if len(outputs) == 1 else f"{node.name}_{k}"
    for node in nodes:
        node.input[:] = [new_name.get(name, name) for name in node.input]
        node.output[:] = [new_name.get(name, name) for name in node.output]
    constants = {new_name.get(name, name): array for name, array in constants.items()}
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    graph.name = "network"
    checker.check_model(model, full_check=True)


def _fold(nodes, constants, opset):
    """Return the nodes that depend on the input; what the others compute is added to `constants`."""
    kept = []
    for node in nodes:
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(helper.get_node_attr_value(node, "value"))
        elif node.op_type not in _COPYING and all(name in constants for name in node.input):
            feeds = {name: constants[name] for name in node.input}
            constants.update(zip(node.output, ReferenceEvaluator(node, opsets={"": opset}).run(None, feeds)))
        else:
            kept.append(node)
    return kept


def _needed(nodes, names):
    """Return the nodes that the values of these names are computed from; `nodes` are in order of execution."""
    kept, names = [], set(names)
    for node in reversed(nodes):
        if names.intersection(node.output):
            names.update(node.input)
            kept.append(node)
    return kept[::-1]


def _merged(constants):
    """Return the new name of each numbered constant, the same one for equal constants."""
    new_name, first = {}, {}
    for name, array in constants.items():
        if _NUMBERED.match(name):
            same = (array.dtype.str, array.shape, array.tobytes())
            new_name[name] = first.setdefault(same, f"constant_{len(first)}")
    return new_name
