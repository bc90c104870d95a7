# SPDX-License-Identifier: Apache-2.0
"""Padding written out: ONNX has long deprecated `auto_pad`, and some tools cannot read it."""

from onnx import helper

from src.deploy.onnx.graph import attributes_of, shapes_of


def write_pads(model):
    """Give convolutions and pools `pads` in place of an `auto_pad`, in place, and return `model`.

    Args:
        model (onnx.ModelProto): all its shapes known.
    """
    shapes = shapes_of(model)
    for node in model.graph.node:
        for attribute in [attribute for attribute in node.attribute if attribute.name == "auto_pad"]:
            node.attribute.remove(attribute)
            if attribute.s != b"NOTSET":
                pads = _pads(attribute.s, attributes_of(node), *(shapes[name] for name in node.input[:2]))
                node.attribute.append(helper.make_attribute("pads", pads))
    return model


def _pads(rule, attributes, image, kernel=()):
    """Return the pads before each axis of height and width, then those after it."""
    sizes, kernel = image[2:], attributes.get("kernel_shape", kernel[2:])
    before, after = [], []
    for axis, (size, taps) in enumerate(zip(sizes, kernel)):
        stride, dilation = (attributes.get(name, [1] * len(sizes))[axis] for name in ("strides", "dilations"))
        reach = (-(-size // stride) - 1) * stride + (taps - 1) * dilation + 1
        total = 0 if rule == b"VALID" else max(reach - size, 0)
        # SAME_UPPER has the odd one after, SAME_LOWER before.
        before.append(total // 2 if rule == b"SAME_UPPER" else -(-total // 2))
        after.append(total - before[-1])
    return before + after
