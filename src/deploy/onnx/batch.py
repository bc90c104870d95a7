# SPDX-License-Identifier: Apache-2.0
"""An ONNX graph for any number of images, made of two that were exported for a fixed number each.

MindSpore exports fixed shapes, so the number of images is part of constants: shapes of Reshape, repeats of Tile,
tensors of zeros as large as a batch. Two exports of one network differ in exactly those. Each is a straight line
through its two values, and is computed from the shape of the input instead.
"""

import numpy as np
from onnx import helper, numpy_helper

from src.deploy.onnx.graph import constants_of, set_constants, set_nodes, shapes_of


def open_batch(model, other, name):
    """Return `model` for any number of images.

    Args:
        model, other (onnx.ModelProto): tidy exports of one network for some number of images and one image more.
        name (str): of the axis that becomes open, first of the input and of each output.

    Raises:
        ValueError: they differ in more than constants that follow the number of images; names the node.
    """
    graph, twin = model.graph, other.graph
    if [node.op_type for node in graph.node] != [node.op_type for node in twin.node]:
        raise ValueError("the two exports have other operators")
    lines = _Lines(graph.input[0])
    for side in (model, other):
        _resolve(side)
    constants, others = constants_of(graph), constants_of(twin)
    for node, twin_node in zip(graph.node, twin.node):
        if list(node.attribute) != list(twin_node.attribute):
            raise ValueError(f"{node.op_type} has other attributes")
        for place, (one, two) in enumerate(zip(node.input, twin_node.input)):
            if (one in constants) != (two in others):
                raise ValueError(f"{node.op_type} has other constants")
            if one in constants and not np.array_equal(constants[one], others[two]):
                node.input[place] = lines.through(constants[one], others[two], node.op_type)
    set_constants(graph, {**constants, **lines.constants})
    set_nodes(graph, [*lines.nodes, *graph.node])
    for value in (graph.input[0], *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = name
    return model


def _resolve(model):
    """Write out the sizes that Reshape nodes find out themselves: each can find out one, and we need it."""
    graph, shapes = model.graph, shapes_of(model)
    for node in graph.node:
        sizes = shapes.get(node.output[0])
        if node.op_type == "Reshape" and sizes and all(sizes):
            node.input[1] = f"0-shape-{node.output[0]}"
            graph.initializer.append(numpy_helper.from_array(np.array(sizes), node.input[1]))


class _Lines:
    """What follows the number of images; `through` returns the name of the value that takes a constant's place."""

    def __init__(self, image):
        self.images, self.known = image.type.tensor_type.shape.dim[0].dim_value, {}
        # A leading digit, as MindSpore's own have: tidying gives them better names.
        self.constants = {"0-first": np.zeros(1, np.int64)}
        self.nodes = [
            helper.make_node("Shape", [image.name], ["0-shape"]),
            helper.make_node("Gather", ["0-shape", "0-first"], ["0-images"]),
        ]

    def through(self, one, two, operator):
        if one.shape != two.shape:
            return self.repeated(one, two)
        if one.dtype != np.int64 or one.ndim != 1:
            raise ValueError(f"{operator} has a constant that does not follow the number of images")
        slope = two - one
        if operator == "Reshape" and np.count_nonzero(slope) == 1 and (one > 0).all():
            return self.constant(np.where(slope, -1, one))
        turns = self.node("Mul", "0-images", self.constant(slope))
        return self.node("Add", turns, self.constant(one - slope * self.images))

    def repeated(self, one, two):
        """A constant that holds the same rows for each image, along one axis."""
        axis = int(np.argmax(np.array(one.shape) != two.shape)) if one.ndim == two.ndim else 0
        rows = np.take(one, range(one.shape[axis] // self.images), axis)
        turns = [np.where(np.arange(one.ndim) == axis, images, 1) for images in (self.images, self.images + 1)]
        if not all(np.array_equal(np.tile(rows, turn), whole) for turn, whole in zip(turns, (one, two))):
            raise ValueError("a constant is not the same for each image")
        return self.node("Tile", self.constant(rows), self.through(*turns, "Tile"))

    def constant(self, array):
        name = self.known.setdefault((array.dtype.str, array.shape, array.tobytes()), f"0-{len(self.known)}")
        self.constants[name] = array
        return name

    def node(self, *key):
        if key not in self.known:
            operator, *inputs = key
            self.known[key] = f"0-{len(self.known)}"
            self.nodes.append(helper.make_node(operator, inputs, [self.known[key]]))
        return self.known[key]
