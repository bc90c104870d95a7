# SPDX-License-Identifier: Apache-2.0
"""Taking out of an ONNX graph what exporters and converters leave in it."""

import re

from onnx import ValueInfoProto, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

# MindSpore numbers the values it names itself; the parameters keep the names they have in the checkpoint.
_UNNAMED = re.compile(r"\d+|constant_\d+$")

# Computed beforehand, their results would make the file larger.
_COPYING = ("Tile", "Expand", "ConstantOfShape")


def tidy(model):
    """Clean a graph in place and return it; it computes the same.

    Nodes that compute constants from constants give way to their results; copies, and casts to the type a value has
    already, are gone, as are nodes that no output needs and the sizes of equal parts; constants are initializers, each
    there once and only if used; nodes, and values without a name of their own, are called by their operator.

    Args:
        model (onnx.ModelProto): one graph, without functions and subgraphs.
    """
    # What is known of values by their old names.
    del model.graph.value_info[:]
    for step in (
        _join_stacks,
        _skip_copies,
        _compute_constants,
        _keep_needed,
        _split_evenly,
        _store_once,
        _call_by_operator,
    ):
        step(model)
    model.graph.name = "network"
    return model


def constants_of(graph):
    """Return the initializers of a graph by name, as arrays."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def shapes_of(model):
    """Return the sizes of the values of a graph by name, initializers and what is inferred included; 0: not known."""
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info)
    }
    return shapes | {tensor.name: list(tensor.dims) for tensor in graph.initializer}


def attributes_of(node):
    """Return the attributes of a node by name."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def set_nodes(graph, nodes):
    """Let the nodes of a graph be `nodes`."""
    nodes = list(nodes)
    del graph.node[:]
    graph.node.extend(nodes)


def set_constants(graph, constants):
    """Let the initializers of a graph be the arrays `constants`, by name."""
    del graph.initializer[:]
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())


def rename(graph, new_names):
    """Rename values where nodes make or take them."""
    for node in graph.node:
        node.input[:] = [new_names.get(name, name) for name in node.input]
        node.output[:] = [new_names.get(name, name) for name in node.output]


def _join_stacks(model):
    """Stack tensors by Concat: MindSpore's exporter makes sequences of them, which few tools know."""
    sequences = {node.output[0]: list(node.input) for node in model.graph.node if node.op_type == "SequenceConstruct"}
    nodes = []
    for node in model.graph.node:
        attributes = attributes_of(node)
        if node.op_type != "ConcatFromSequence" or not attributes.get("new_axis"):
            nodes.append(node)
            continue
        # A leading digit: tidying finds better names.
        parts = [f"0-{node.output[0]}-{number}" for number in range(len(sequences[node.input[0]]))]
        for name, part in zip(sequences[node.input[0]], parts):
            nodes.append(helper.make_node("Unsqueeze", [name], [part], axes=[attributes["axis"]]))
        nodes.append(helper.make_node("Concat", parts, list(node.output), axis=attributes["axis"]))
    set_nodes(model.graph, nodes)


def _skip_copies(model):
    graph = model.graph
    inferred = shape_inference.infer_shapes(model).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*inferred.input, *inferred.value_info)}
    kinds.update((tensor.name, tensor.data_type) for tensor in graph.initializer)
    # A Slice along no axis takes the whole; MindSpore Lite 2.0 fails on it.
    empty = {tensor.name for tensor in graph.initializer if 0 in tensor.dims}
    results = {value.name for value in graph.output}
    given = {value.name for value in (*graph.input, *graph.initializer)}
    kept, original, result_of = [], {}, {}
    for node in graph.node:
        node.input[:] = [original.get(name, name) for name in node.input]
        is_cast = node.op_type == "Cast" and helper.get_node_attr_value(node, "to") == kinds.get(node.input[0])
        is_whole = node.op_type == "Slice" and node.input[1] in empty
        if not (is_cast or is_whole or node.op_type == "Identity"):
            kept.append(node)
        elif node.output[0] not in results:
            original[node.output[0]] = node.input[0]
        elif node.input[0] not in given:
            result_of[node.input[0]] = node.output[0]
        else:
            kept.append(node)
    set_nodes(graph, kept)
    rename(graph, result_of)


def _compute_constants(model):
    constants, kept = constants_of(model.graph), []
    for node in model.graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = numpy_helper.to_array(helper.get_node_attr_value(node, "value"))
        elif node.op_type not in _COPYING and all(name in constants for name in node.input if name):
            constants.update(_computed(node, {name: constants[name] for name in node.input if name}, model))
        else:
            kept.append(node)
    set_nodes(model.graph, kept)
    set_constants(model.graph, constants)


def _computed(node, feeds, model):
    """Return the results of a node by name, as the opset of its model has them; of a node alone it is the newest."""
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    graph = helper.make_graph([node], "node", inputs, [ValueInfoProto(name=name) for name in node.output])
    evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=model.opset_import))
    return dict(zip(node.output, evaluator.run(None, feeds)))


def _keep_needed(model):
    """Keep the nodes that the outputs are computed from; they are in order of execution."""
    kept, names = [], {output.name for output in model.graph.output}
    for node in reversed(model.graph.node):
        if names.intersection(node.output):
            names.update(node.input)
            kept.append(node)
    set_nodes(model.graph, reversed(kept))


def _split_evenly(model):
    """Leave out sizes of equal parts, as the operator's default, which does not depend on the number of images."""
    for node in model.graph.node:
        sizes = [attribute for attribute in node.attribute if attribute.name == "split"]
        if node.op_type == "Split" and sizes and len(set(sizes[0].ints)) == 1:
            node.attribute.remove(sizes[0])


def _store_once(model):
    """Drop unused constants, and give equal ones without a name of their own one name."""
    graph = model.graph
    used = {name for node in graph.node for name in node.input}
    constants = {name: array for name, array in constants_of(graph).items() if name in used}
    new_names, first = {}, {}
    for name, array in constants.items():
        if _UNNAMED.match(name):
            same = (array.dtype.str, array.shape, array.tobytes())
            new_names[name] = first.setdefault(same, f"constant_{len(first)}")
    rename(graph, new_names)
    set_constants(graph, {new_names.get(name, name): array for name, array in constants.items()})


def _call_by_operator(model):
    results = {output.name for output in model.graph.output}
    new_names = {}
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"
        for k, name in enumerate(node.output):
            if name and name not in results:
                new_names[name] = node.name if len(node.output) == 1 else f"{node.name}_{k}"
    rename(model.graph, new_names)
