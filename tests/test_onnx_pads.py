# SPDX-License-Identifier: Apache-2.0
"""Pads written out pad as the rule did that they take the place of; of exported files see `test_fold.py`."""

import numpy as np
import onnxruntime
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import checker
from onnx_graphs import float32, graph

from src.deploy.onnx.graph import attributes_of
from src.deploy.onnx.pads import write_pads


def run(model, image):
    """In onnxruntime: ONNX's own reference pads otherwise."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image})[0]


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["VALID", "SAME_UPPER", "SAME_LOWER", "NOTSET"]),
    *[st.tuples(st.integers(low, high), st.integers(low, high)) for low, high in ((5, 9), (1, 4), (1, 3))],
    st.booleans(),
)
def test_written_pads_are_what_the_rule_pads(rule, sizes, kernel, strides, is_pool):
    """A pool, and a convolution whose attributes leave out its kernel, compute the same with and without the rule."""
    strides = [min(pair) for pair in zip(strides, kernel)]  # onnxruntime has no rule for pixels that are stepped over
    attributes = f'strides=[{strides[0]},{strides[1]}], auto_pad="{rule}"'
    if is_pool:
        nodes = f"logits = MaxPool<kernel_shape=[{kernel[0]},{kernel[1]}], {attributes}>(image)"
    else:
        nodes = f"logits = Conv<{attributes}>(image, weight)"
    signature = f"float[1,1,{sizes[0]},{sizes[1]}] image) => (float[1,1,h,w] logits"
    constants = {} if is_pool else {"weight": float32(1, 1, *kernel)}
    model, image = graph(signature, nodes, **constants), float32(1, 1, *sizes, seed=1)
    expected = run(model, image)
    write_pads(model)
    checker.check_model(model, full_check=True)
    named = attributes_of(model.graph.node[0])
    assert "auto_pad" not in named and ("pads" in named) == (rule != "NOTSET")
    np.testing.assert_allclose(run(model, image), expected, atol=1e-5)


def test_an_odd_pixel_and_a_dilation():
    """By hand: three taps two apart on five pixels in steps of two reach two beyond each end; two taps beyond one."""
    for rule, kernel, dilation, pads in (
        ("SAME_UPPER", 3, 2, [2, 2]),
        ("SAME_UPPER", 2, 1, [0, 1]),
        ("SAME_LOWER", 2, 1, [1, 0]),
    ):
        nodes = f'logits = Conv<strides=[1,2], dilations=[1,{dilation}], auto_pad="{rule}">(image, weight)'
        model = graph("float[1,1,5,5] image) => (float[1,1,h,w] logits", nodes, weight=float32(1, 1, 1, kernel))
        before, after = pads
        assert attributes_of(write_pads(model).graph.node[0])["pads"] == [0, before, 0, after]
