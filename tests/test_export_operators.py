# SPDX-License-Identifier: Apache-2.0
"""LayerNormalization, GELU and padded max pools are found in exported graphs, nothing else is, and numbers stay."""

import re

import numpy as np
import pytest
from onnx import checker
from onnx_graphs import float32, graph, operators, run

from src.deploy.onnx.graph import tidy
from src.deploy.onnx.operators import name_operators
from src.ops.gelu import _COEFFICIENTS

ENDS = "float[2,5,8] image) => (float[2,5,8] logits"
NORM = """
mean = ReduceMeanOVER(image)
centred = Sub(image, mean)
squares = ReduceSumSquareOVER(centred)
variance = Div(squares, count)
guarded = Add(variance, epsilon)
deviation = Sqrt(guarded)
normed = Div(centred, deviation)
scaled = Mul(normed, gamma)
logits = Add(scaled, beta)
"""


def layer_norm(axis=2, opset=11, channels=8, count=8):
    names = {"gamma": float32(channels), "beta": float32(channels, seed=1)}
    numbers = {"count": np.float32(count), "epsilon": np.float32(1e-5)}
    if opset < 18:
        return graph(ENDS, NORM.replace("OVER", f"<axes=[{axis}]>"), opset, **names, **numbers)
    nodes = re.sub(r"OVER\((\w+)\)", r"(\1, axes)", NORM)
    return graph(ENDS, nodes, opset, axes=np.array([axis]), **names, **numbers)


@pytest.mark.parametrize("axis", [2, -1])
@pytest.mark.parametrize("opset", [11, 17, 20])
def test_layer_normalization(axis, opset):
    """One node where the opset has it; before, the nodes that runtimes fuse; the same numbers either way."""
    model, image = layer_norm(axis, opset), 3 * float32(2, 5, 8) + 1
    expected = run(model, image)
    named = tidy(name_operators(model))
    spelled_out = ["ReduceMean", "Sub", "Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul", "Add"]
    assert operators(named) == (["LayerNormalization"] if opset > 11 else spelled_out)
    checker.check_model(named, full_check=True)
    np.testing.assert_allclose(run(named, image), expected, atol=1e-6)


@pytest.mark.parametrize("change", [{"axis": 1}, {"count": 5}, {"channels": 1}])
def test_no_layer_normalization(change):
    """Another axis, another divisor or one scale for all channels is something else."""
    model = layer_norm(**change, opset=17)
    assert "LayerNormalization" not in operators(name_operators(model))


def gelu(coefficients=_COEFFICIENTS, opset=11):
    """What `src.ops.gelu` exports."""
    nodes, numbers = ["square = Mul(image, image)", "x0 = Mul(square, c0)"], {"c0": np.float32(coefficients[0])}
    for k, coefficient in enumerate(coefficients[1:], 1):
        numbers[f"c{k}"] = np.float32(coefficient)
        nodes.append(f"y{k} = Add(x{k - 1}, c{k})")
        nodes.append(f"x{k} = Mul(y{k}, {'square' if k < len(coefficients) - 1 else 'image'})")
    nodes += [f"p = Sigmoid(x{len(coefficients) - 1})", "logits = Mul(image, p)"]
    return graph(ENDS, "\n".join(nodes), opset, **numbers)


@pytest.mark.parametrize("opset", [11, 17, 20])
def test_gelu(opset):
    """One node from opset 20 on; before, by the error function, the nodes that runtimes fuse."""
    model, image = gelu(opset=opset), 2 * float32(2, 5, 8)
    expected = run(model, image)
    named = tidy(name_operators(model))
    assert operators(named) == (["Gelu"] if opset == 20 else ["Div", "Erf", "Add", "Mul", "Mul"])
    checker.check_model(named, full_check=True)
    np.testing.assert_allclose(run(named, image), expected, atol=1e-6)


def test_no_gelu():
    """A sigmoid linear unit of nearly the same shape, or of another value, stays what it is."""
    likely = graph(ENDS, "scaled = Mul(image, c) p = Sigmoid(scaled) logits = Mul(image, p)", c=np.float32(1.702))
    assert "Sigmoid" in operators(name_operators(likely))
    assert "Sigmoid" in operators(name_operators(gelu((*_COEFFICIENTS[:-1], 1.5957))))
    other = graph(ENDS, "half = Mul(image, c) p = Sigmoid(half) logits = Mul(half, p)", c=np.float32(0.5))
    assert "Sigmoid" in operators(name_operators(other))


def max_pool(before="Relu", zero=0.0, behind=True):
    """A max pool of a map with a row above, a column to the left and, `behind`, one to the right joined on."""
    row, column = np.full((2, 3, 1, 8), zero, np.float32), np.full((2, 3, 9, 1), zero, np.float32)
    nodes = f"""
        map = {before}(image)
        tall = Concat<axis=2>(row, map)
        wide = Concat<axis=3>(column, tall{", column" if behind else ""})
        logits = MaxPool<kernel_shape=[3, 3], strides=[2, 2], auto_pad="VALID">(wide)
    """
    return graph("float[2,3,8,8] image) => (float[2,3,4,4] logits", nodes, row=row, column=column)


@pytest.mark.parametrize("behind", [True, False])
def test_padded_max_pool(behind):
    """The pool pads by itself, each side by as much as was joined on there."""
    model, image = max_pool(behind=behind), float32(2, 3, 8, 8)
    expected = run(model, image)
    named = tidy(name_operators(model))
    assert operators(named) == ["Relu", "MaxPool"]
    checker.check_model(named, full_check=True)
    np.testing.assert_array_equal(run(named, image), expected)


@pytest.mark.parametrize("change", [{"before": "Neg"}, {"zero": 1.0}])
def test_no_padded_max_pool(change):
    """Where values may be negative, or other numbers are joined on, what a pool pads with would win or lose."""
    joining = operators(tidy(name_operators(max_pool(**change))))
    assert joining.count("Concat" if "zero" in change else "Pad") == 2


def test_joined_zeros_are_padding():
    """On either side and on both, by the operator that needs no constants of the size of a batch."""
    model, image = max_pool(before="Neg"), float32(2, 3, 8, 8)
    expected = run(model, image)
    named = tidy(name_operators(model))
    assert operators(named) == ["Neg", "Pad", "Pad", "MaxPool"]
    checker.check_model(named, full_check=True)
    np.testing.assert_array_equal(run(named, image), expected)
