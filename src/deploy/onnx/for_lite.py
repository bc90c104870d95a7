# SPDX-License-Identifier: Apache-2.0
"""What MindSpore Lite 2.0 fails on, or computes wrongly without a word, written in another way."""

import itertools
import math

import numpy as np
from onnx import helper

from src.deploy.onnx.graph import attributes_of, constants_of, set_constants, set_nodes, shapes_of

# Beyond them Lite 2.0 transposes right only where the first axis has one element.
MOST_AXES = 6
# Operators for which Lite 2.0 does not convert a file, as how many results they give is known only when they ran.
UNREAD = frozenset({"NonMaxSuppression"})


def suit_lite(model):
    """Rewrite what MindSpore Lite 2.0 cannot do, in place, and return `model`, which computes the same.

    A Transpose of more than `MOST_AXES` axes becomes two of fewer: axes that stay beside one another count as one, and
    a Reshape makes them one. One image at a time needs no split. A convolution that only scales each channel, which
    Lite loses track of behind a Transpose and a Reshape, becomes a product. Convolutions with the same weights, as in a
    detector's head, get each their own: Lite turns them to its layout in place, once for each. There is no use in that
    where there is an operator of `UNREAD`.

    Args:
        model (onnx.ModelProto): tidy, all its shapes known.
    """
    shapes = shapes_of(model)
    constants, nodes = constants_of(model.graph), []
    for number, node in enumerate(model.graph.node):
        # A leading digit: tidying finds better names.
        prefix = f"0-{number}"
        if node.op_type == "Transpose" and len(shapes[node.input[0]]) > MOST_AXES and shapes[node.input[0]][0] != 1:
            nodes.extend(_split(node, shapes[node.input[0]], prefix, constants))
        elif node.op_type == "Conv" and _is_scale(node, constants):
            nodes.extend(_product(node, prefix, constants))
        else:
            nodes.append(node)
    if UNREAD.isdisjoint(node.op_type for node in nodes):
        _own_weights(nodes, constants)
    set_constants(model.graph, constants)
    set_nodes(model.graph, nodes)
    return model


def _own_weights(nodes, constants):
    used = set()
    for number, node in enumerate(nodes):
        if node.op_type != "Conv" or node.input[1] not in constants:
            continue
        if node.input[1] in used:
            name = f"{node.input[1]}.{number}"
            constants[name], node.input[1] = constants[node.input[1]], name
        used.add(node.input[1])


def _split(node, shape, prefix, constants):
    """Return the nodes that take the place of a Transpose; the shapes they need are added to `constants`."""
    order = list(helper.get_node_attr_value(node, "perm"))
    names = [f"{prefix}-{step}" for step in range(5)]
    nodes, value = [], node.input[0]
    for step, permutation in enumerate(_two_steps(order)):
        groups = _groups(permutation)
        merged = [math.prod(shape[axis] for axis in group) for group in sorted(groups)]
        shape = [shape[axis] for axis in permutation]
        perm = [sorted(groups).index(group) for group in groups]
        constants[names[step] + "-shape"] = np.array(merged, np.int64)
        nodes += [
            helper.make_node("Reshape", [value, names[step] + "-shape"], [names[step] + "-merged"]),
            helper.make_node("Transpose", [names[step] + "-merged"], [names[step]], perm=perm),
        ]
        value = names[step]
    constants[names[4]] = np.array(shape, np.int64)
    return [*nodes, helper.make_node("Reshape", [value, names[4]], list(node.output))]


def _is_scale(node, constants):
    attributes = attributes_of(node)
    kernel = constants.get(node.input[1])
    is_by_channel = kernel is not None and kernel.shape == (attributes.get("group", 1), 1, 1, 1)
    return is_by_channel and not any(attributes.get("pads", [])) and max(attributes.get("strides", [1])) == 1


def _product(node, prefix, constants):
    """Return the nodes that take the place of a convolution that only scales, and shifts if it has a bias."""
    image, *names = node.input
    results = [f"{prefix}-scaled", *node.output][-len(names) :]
    nodes = []
    for operator, name, result in zip(("Mul", "Add"), names, results):
        constants[f"{prefix}-{operator}"] = constants[name].reshape(-1, 1, 1)
        nodes.append(helper.make_node(operator, [image, f"{prefix}-{operator}"], [result]))
        image = result
    return nodes


def _two_steps(order):
    """Return two permutations, of few groups each, that one after the other permute as `order`."""
    for first in itertools.permutations(range(len(order))):
        second = [first.index(axis) for axis in order]
        if max(len(_groups(first)), len(_groups(second))) <= MOST_AXES:
            return first, second
    raise ValueError(f"no two transposes of {MOST_AXES} axes permute as {order}")


def _groups(permutation):
    """[0, 3, 1, 2] -> [[0], [3], [1, 2]]: the axes that stay beside one another."""
    groups = []
    for axis in permutation:
        if groups and axis == groups[-1][-1] + 1:
            groups[-1].append(axis)
        else:
            groups.append([axis])
    return groups
