# SPDX-License-Identifier: Apache-2.0
"""LayerNormalization, GELU, padding and padded max pools, found in an exported graph, as deployment tools know them.

MindSpore's exporter spells them out: a LayerNormalization in its own way, GELU as `src.ops.gelu` computes it, without
erf, padding as zeros joined on (`src.ops.padded`, `src.models.resnet.ImageNetStem`). A pool can pad by itself.
LayerNormalization and GELU become one node from opset 17 and 20 on; before, they are spelled out in the way that
onnxruntime, TensorRT and MindSpore Lite look for when they fuse.
"""

import math

import numpy as np
from onnx import helper, numpy_helper, shape_inference

from src.deploy.onnx.graph import attributes_of, constants_of, set_nodes

LAYER_NORM_OPSET, GELU_OPSET = 17, 20
# Where a function is compared with GELU, and by how much it may differ.
_GRID, _TOLERANCE = np.linspace(-12, 12, 2401, dtype=np.float32), 1e-6
_FUNCTIONS = {"Add": np.add, "Mul": np.multiply, "Sigmoid": lambda x: 1 / (1 + np.exp(-x))}
_EXACT = np.array([x / 2 * math.erfc(-x / math.sqrt(2)) for x in _GRID.tolist()])


def name_operators(model):
    """Write what computes a LayerNormalization, GELU, Pad or padded max pool as that, in place, and return `model`.

    Args:
        model (onnx.ModelProto): tidy; nodes that nothing needs any more are left in it.
    """
    opset, graph = model.opset_import[0].version, _Index(model)
    nodes = []
    for node in model.graph.node:
        found = _layer_norm(graph, node, opset) or _gelu(graph, node, opset) or _max_pool(graph, node)
        found = found or _pad(graph, node)
        nodes.extend(found or [node])
    set_nodes(model.graph, nodes)
    return model


class _Other(Exception):
    """What is looked at is something else."""


class _Index:
    """Looking a graph up from a value back to what made it."""

    def __init__(self, model):
        inferred = shape_inference.infer_shapes(model).graph
        values = (*inferred.input, *inferred.value_info)
        self.rank = {value.name: len(value.type.tensor_type.shape.dim) for value in values}
        self.maker = {name: node for node in model.graph.node for name in node.output}
        self.constants = constants_of(model.graph)

    def inputs(self, value, operator):
        """Names of what `operator` made a value of."""
        node = self.maker.get(value)
        if node is None or node.op_type != operator:
            raise _Other
        return list(node.input)

    def variable_and_constant(self, value, operator):
        """Name of the variable and of the constant that `operator` made a value of."""
        left, right = self.inputs(value, operator)
        if left in self.constants and operator != "Div":
            left, right = right, left
        if left in self.constants or right not in self.constants:
            raise _Other
        return left, right

    def number(self, name):
        if self.constants[name].size != 1:
            raise _Other
        return float(self.constants[name].item())

    def reduced(self, value, operator):
        """Name of what `operator` reduces along its last axis, which it keeps."""
        name, *axes = self.inputs(value, operator)
        attributes = attributes_of(self.maker[value])
        axes = self.constants[axes[0]].tolist() if axes else attributes.get("axes", [])
        if not attributes.get("keepdims", 1) or axes not in ([-1], [self.rank.get(name, 0) - 1]):
            raise _Other
        return name


def _layer_norm(graph, node, opset):
    """Return the nodes to take the place of the last one of a LayerNormalization, None for any other `node`."""
    try:
        scaled, beta = graph.variable_and_constant(node.output[0], "Add")
        normed, gamma = graph.variable_and_constant(scaled, "Mul")
        centred, deviation = graph.inputs(normed, "Div")
        (variance_and_epsilon,) = graph.inputs(deviation, "Sqrt")
        variance, epsilon = graph.variable_and_constant(variance_and_epsilon, "Add")
        squares, count = graph.variable_and_constant(variance, "Div")
        x, mean = graph.inputs(centred, "Sub")
        is_whole = graph.reduced(squares, "ReduceSumSquare") == centred and graph.reduced(mean, "ReduceMean") == x
        sizes = {graph.number(count), *graph.constants[gamma].shape, *graph.constants[beta].shape}
        epsilon = graph.number(epsilon)
    except _Other:
        return None
    if not is_whole or len(sizes) > 1 or graph.constants[gamma].ndim != 1 or graph.constants[beta].ndim != 1:
        return None
    steps = _Steps(node.output[0])
    if opset >= LAYER_NORM_OPSET:
        return steps.end("LayerNormalization", x, gamma, beta, axis=-1, epsilon=epsilon)
    centred = steps("Sub", x, steps("ReduceMean", x, axes=[-1], keepdims=1))
    variance = steps("ReduceMean", steps("Pow", centred, steps.number(2)), axes=[-1], keepdims=1)
    normed = steps("Div", centred, steps("Sqrt", steps("Add", variance, steps.number(epsilon))))
    return steps.end("Add", steps("Mul", normed, gamma), beta)


def _gelu(graph, node, opset):
    """Return the nodes to take the place of the last one of a GELU, None for any other `node`."""
    if node.op_type != "Mul":
        return None
    x = next((x for x, factor in (node.input, node.input[::-1]) if _is_gelu(graph, x, factor)), None)
    if x is None:
        return None
    steps = _Steps(node.output[0])
    if opset >= GELU_OPSET:
        return steps.end("Gelu", x)
    erf = steps("Erf", steps("Div", x, steps.number(math.sqrt(2))))
    return steps.end("Mul", steps("Mul", x, steps("Add", erf, steps.number(1))), steps.number(0.5))


def _is_gelu(graph, x, factor):
    """Whether x times the value `factor`, a sigmoid, is the GELU of x, tried on a grid."""
    known = {x: _GRID.astype(float)}

    def value(name):
        if name not in known:
            if name in graph.constants:
                known[name] = graph.number(name)
            else:
                node = graph.maker.get(name)
                if node is None or node.op_type not in _FUNCTIONS:
                    raise _Other
                known[name] = _FUNCTIONS[node.op_type](*map(value, node.input))
        return known[name]

    try:
        graph.inputs(factor, "Sigmoid")
        with np.errstate(over="ignore"):
            return bool(np.abs(known[x] * value(factor) - _EXACT).max() <= _TOLERANCE)
    except _Other:
        return False


def _max_pool(graph, node):
    """Return a max pool that pads by itself in place of one of a map after ReLU with zeros joined on, else None."""
    attributes = attributes_of(node)
    if node.op_type != "MaxPool" or attributes.pop("auto_pad", b"") != b"VALID":
        return None
    image, pads = node.input[0], [0, 0, 0, 0]
    while (joined := graph.maker.get(image)) is not None and joined.op_type == "Concat":
        axis = attributes_of(joined)["axis"]
        maps = [name for name in joined.input if name not in graph.constants]
        borders = [graph.constants[name] for name in joined.input if name in graph.constants]
        if len(maps) != 1 or axis not in (2, 3) or any(border.any() for border in borders):
            return None
        place = list(joined.input).index(maps[0])
        for number, border in enumerate(borders):
            pads[axis - 2 + 2 * (number >= place)] += border.shape[axis]
        image = maps[0]
    if not any(pads) or getattr(graph.maker.get(image), "op_type", "") != "Relu":
        return None
    return [helper.make_node("MaxPool", [image], list(node.output), pads=pads, **attributes)]


def _pad(graph, node):
    """Return a padding in place of zeros joined on, else None."""
    maps = [name for name in node.input if name not in graph.constants]
    if node.op_type != "Concat" or len(maps) != 1 or len(node.input) == 1 or maps[0] not in graph.rank:
        return None
    borders = [graph.constants.get(name) for name in node.input]
    if any(border is not None and border.any() for border in borders):
        return None
    rank, place = graph.rank[maps[0]], list(node.input).index(maps[0])
    axis, pads = attributes_of(node)["axis"] % rank, np.zeros((2, rank), np.int64)
    for number, border in enumerate(borders):
        if border is not None:
            pads[int(number > place), axis] += border.shape[axis]
    steps = _Steps(node.output[0])
    return steps.end("Pad", maps[0], steps("Constant", value=numpy_helper.from_array(pads.reshape(-1))))


class _Steps:
    """Nodes that compute one value, in order; calling it adds one and returns the name of its result."""

    def __init__(self, result):
        self.result, self.nodes = result, []

    def __call__(self, operator, *inputs, **attributes):
        # A leading digit: tidying finds better names.
        self.nodes.append(helper.make_node(operator, inputs, [f"0-{self.result}-{len(self.nodes)}"], **attributes))
        return self.nodes[-1].output[0]

    def number(self, value):
        return self("Constant", value=numpy_helper.from_array(np.array(value, np.float32)))

    def end(self, operator, *inputs, **attributes):
        """Add the node that makes the result and return all of them."""
        self(operator, *inputs, **attributes)
        self.nodes[-1].output[0] = self.result
        return self.nodes
