# SPDX-License-Identifier: Apache-2.0
"""Two graphs for fixed numbers of images make one for any number, or are refused."""

import numpy as np
import pytest
from onnx import checker, shape_inference
from onnx_graphs import float32, graph, operators, run

from src.deploy.onnx.batch import open_batch
from src.deploy.onnx.graph import tidy

CLASS_TOKEN = float32(1, 1, 4)


def network(batch, **change):
    """Constants follow the number of images in every way that exported networks have, in float32 (B, 6, 4)."""
    constants = {
        "merged": np.array([batch * 6, 4]),
        "apart": np.array([batch, 6, 4]),
        "turns": np.array([batch, 1, 1]),
        "token": CLASS_TOKEN,
        "zeros": np.tile(np.array([[[0.0, 1.0, 2.0, 3.0]]], np.float32), (batch, 2, 1)),
        "start": np.array([0]),
        "end": np.array([3 * batch]),
        "two": np.array([2 * batch, 6, -1]),
        **change,
    }
    nodes = """
    rows = Reshape(image, merged)
    turned = Neg(rows)
    maps = Reshape(turned, apart)
    tokens = Tile(token, turns)
    more = Concat<axis=1>(tokens, maps, zeros)
    all = Concat<axis=0>(more, more, more, more)
    some = Slice(all, start, end, start)
    logits = ReduceMean<axes=[1], keepdims=0>(some)
    """
    return tidy(graph(f"float[{batch},6,4] image) => (float[{3 * batch},4] logits", nodes, **constants))


def test_any_number_of_images():
    """The open graph computes what the fixed ones do, for numbers of images that it was not made of."""
    model = tidy(open_batch(network(2), network(3), "batch"))
    for batch in (1, 2, 3, 5, 8):
        image = float32(batch, 6, 4)
        np.testing.assert_array_equal(run(model, image), run(network(batch), image))
    dims = [value.type.tensor_type.shape.dim[0] for value in (model.graph.input[0], model.graph.output[0])]
    assert [dim.dim_param for dim in dims] == ["batch", "batch"]
    checker.check_model(model, full_check=True)
    shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)


def test_a_reshape_needs_no_arithmetic():
    """Where only one size of a shape follows the number of images, it is left to the runtime: -1, whatever it was."""
    nodes = "maps = Reshape(image, apart) rows = Reshape(maps, merged) logits = Neg(rows)"

    def fixed(b):
        shapes = {"apart": np.array([b, -1, 2, 2]), "merged": np.array([b * 6, -1])}
        return tidy(graph(f"float[{b},6,4] image) => (float[{b * 6},4] logits", nodes, **shapes))

    assert operators(tidy(open_batch(fixed(2), fixed(3), "batch"))) == ["Reshape", "Reshape", "Neg"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token": 2 * CLASS_TOKEN}, "Tile has a constant that does not follow"),
        ({"zeros": np.arange(24, dtype=np.float32).reshape(3, 2, 4)}, "not the same for each image"),
        ({"zeros": np.zeros((3, 3, 4), np.float32)}, "not the same for each image"),
    ],
    ids=["value", "rows", "axes"],
)
def test_what_does_not_follow_the_number_of_images(change, message):
    """Constants that differ otherwise are an error, never a guess."""
    with pytest.raises(ValueError, match=message):
        open_batch(network(2), network(3, **change), "batch")


def test_graphs_that_differ():
    """Other operators or attributes are an error too."""
    signature = "float[2,3] image) => (float[2,3] logits"
    one = graph(signature, "logits = Softmax<axis=1>(image)")
    for other in ("logits = Neg(image)", "logits = Softmax<axis=0>(image)"):
        with pytest.raises(ValueError, match="other"):
            open_batch(one, graph(signature, other), "batch")
