# SPDX-License-Identifier: Apache-2.0
"""The operator against the published code and against its definition."""

import json
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from acmix_reference import acmix
from hypothesis import given, settings
from hypothesis import strategies as st
from mindspore import Tensor, nn, ops

from src.models.published import published_names
from src.models.resnet import PUBLISHED
from src.ops import ACmix
from src.training.precision import mixed_precision

GOLDEN = sorted((Path(__file__).parent / "golden").glob("acmix_op_*.npz"))
CHANNELS = 8


class OutputAndGradients(nn.Cell):
    """A network's output and its gradients by input and all parameters, for a given gradient of the output: one graph.

    Returns:
        output, (gradient by the input, gradients by the parameters).
    """

    def __init__(self, network):
        super().__init__(auto_prefix=False)
        self.network = network
        weights = ms.ParameterTuple(network.get_parameters())
        self.gradient = ops.value_and_grad(self.along, 0, weights, has_aux=True)

    def along(self, x, cotangent):
        out = self.network(x)
        return (out * cotangent).sum(), out

    def construct(self, x, cotangent):
        (_, out), gradients = self.gradient(x, cotangent)
        return out, gradients


@pytest.fixture(autouse=True)
def graph_mode():
    ms.set_context(mode=ms.GRAPH_MODE)


def random_weights(network, rng):
    """Give every parameter random values of one size, so that no path hides behind a zero; return them as float64."""
    weights = {}
    for parameter in network.get_parameters():
        fan_in = max(int(np.prod(parameter.shape[1:])), 1)
        weights[parameter.name] = rng.standard_normal(parameter.shape) / np.sqrt(fan_in)
        parameter.set_data(Tensor(weights[parameter.name].astype(np.float32)))
    return weights


def largest_error(ours, expected):
    return np.abs(ours - expected).max() / np.abs(expected).max()


def published(golden, prefix, parameter):
    """Return what the published code recorded for one of our parameters, in our shape."""
    parts = [golden[prefix + name.lstrip(".")] for name in published_names("." + parameter.name, PUBLISHED)]
    return np.concatenate(parts).reshape(parameter.shape)


def golden_layer(golden):
    """Return the operator with the settings and weights that the published code was recorded with."""
    config = json.loads(str(golden["config"]))
    layer = ACmix(
        config["in_planes"],
        config["out_planes"],
        config["stride"],
        kernel_att=config["kernel_att"],
        heads=config["head"],
        kernel_conv=config["kernel_conv"],
    )
    for parameter in layer.get_parameters():
        parameter.set_data(Tensor(published(golden, "w.", parameter)))
    return layer


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_float16_equals_the_published_code(path):
    """Mixed precision on the recorded inputs, to 2e-2 of the largest value."""
    golden = np.load(path)
    half = mixed_precision(golden_layer(golden), "O2")
    assert largest_error(half(Tensor(golden["x"])).asnumpy(), golden["y"]) < 2e-2


@pytest.mark.parametrize(
    ("device", "path"),
    [*(("CPU", path) for path in GOLDEN), *(("Ascend", path) for path in GOLDEN[::3])],
    ids=lambda value: getattr(value, "stem", value),
)
def test_outputs_and_gradients_equal_the_published_code(device, path, built_for):
    """Forward and every gradient to 1e-5 of the largest value, in graph mode, in the form for each device."""
    built_for(device)
    golden = np.load(path)
    network = golden_layer(golden)
    parameters = list(network.get_parameters())
    out, (grad_x, grads) = OutputAndGradients(network)(Tensor(golden["x"]), Tensor(golden["cotangent"]))
    assert largest_error(out.asnumpy(), golden["y"]) < 1e-5
    assert largest_error(grad_x.asnumpy(), golden["grad_x"]) < 1e-5
    for parameter, gradient in zip(parameters, grads):
        if parameter.name == "attention.position.bias":  # cancels in the softmax: zero here, rounding there
            assert not gradient.asnumpy().any()
        else:
            assert largest_error(gradient.asnumpy(), published(golden, "g.", parameter)) < 1e-5, parameter.name


@settings(max_examples=6, deadline=None)
@given(
    height=st.integers(1, 19),
    width=st.integers(1, 19),
    kernel_att=st.sampled_from((1, 3, 5, 7)),
    kernel_conv=st.sampled_from((1, 3, 5)),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    heads=st.sampled_from((1, 2, 4)),
    seed=st.integers(0, 2**31),
)
def test_any_size_equals_the_definition(height, width, kernel_att, kernel_conv, stride, dilation, heads, seed):
    """Windows wider than the map, sizes no block divides, strides, dilation: outputs, and gradients along a line."""
    rng = np.random.default_rng(seed)
    network = ACmix(3, CHANNELS, stride, dilation, kernel_att=kernel_att, heads=heads, kernel_conv=kernel_conv)
    weights = random_weights(network, rng)
    x = rng.standard_normal((2, 3, height, width))
    expected = acmix(x, weights, heads, kernel_att, kernel_conv, stride, dilation)
    assert expected.shape == (2, CHANNELS, -(-height // stride), -(-width // stride))
    cotangent = rng.standard_normal(expected.shape)
    out, (grad_x, grads) = OutputAndGradients(network)(*(Tensor(a.astype(np.float32)) for a in (x, cotangent)))
    assert out.shape == expected.shape
    assert np.abs(out.asnumpy() - expected).max() < 1e-5 * max(np.abs(expected).max(), 1)

    direction = {name: rng.standard_normal(value.shape) for name, value in weights.items()}
    along_x = rng.standard_normal(x.shape)

    def loss(step):
        moved = {name: value + step * direction[name] for name, value in weights.items()}
        return (cotangent * acmix(x + step * along_x, moved, heads, kernel_att, kernel_conv, stride, dilation)).sum()

    slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
    parts = [(grad_x.asnumpy() * along_x).sum()]
    parts += [(g.asnumpy() * direction[p.name]).sum() for g, p in zip(grads, network.get_parameters())]
    assert abs(sum(parts) - slope) < 1e-4 * max(np.abs(parts).sum(), 1)


def test_one_cell_serves_every_feature_size():
    """As a module dropped into a detector it meets many sizes: each compiles its own constants, none stays behind."""
    network = ACmix(3, CHANNELS, stride=2)
    weights = random_weights(network, np.random.default_rng(0))
    for height, width in ((20, 33), (4, 5), (20, 33), (1, 1)):
        x = np.random.default_rng(height).standard_normal((1, 3, height, width))
        out = network(Tensor(x.astype(np.float32))).asnumpy()
        assert largest_error(out, acmix(x, weights, 4, 7, 3, 2, 1)) < 1e-5


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (2, 2)])
def test_the_three_shifts_agree_at_the_start(stride, dilation):
    """Learnable and fixed kernels start as the slices; only the learnable one trains."""
    x = Tensor(np.random.default_rng(0).standard_normal((2, 3, 11, 8)).astype(np.float32))
    networks = {
        shift: ACmix(3, CHANNELS, stride=stride, dilation=dilation, shift=shift)
        for shift in ("slice", "fixed", "learnable")
    }
    shared = random_weights(networks["slice"], np.random.default_rng(1))
    outs = {}
    for shift, network in networks.items():
        for parameter in network.get_parameters():
            if parameter.name in shared:
                parameter.set_data(Tensor(shared[parameter.name].astype(np.float32)))
        outs[shift] = network(x).asnumpy()
    assert largest_error(outs["fixed"], outs["slice"]) < 1e-5
    assert largest_error(outs["learnable"], outs["slice"]) < 1e-5
    trained = {shift: [p.name for p in network.trainable_params()] for shift, network in networks.items()}
    assert "convolution.shift.weight" in trained["learnable"]
    assert "convolution.shift.weight" not in trained["fixed"] + trained["slice"]


def test_the_paths_add_up():
    """alpha * attention + beta * convolution, from one projection."""
    rng = np.random.default_rng(0)
    x = Tensor(rng.standard_normal((2, 3, 9, 9)).astype(np.float32))
    networks = {paths: ACmix(3, CHANNELS, paths=paths) for paths in ("both", "attention", "convolution")}
    weights = random_weights(networks["both"], rng)
    outs = {}
    for paths, network in networks.items():
        for parameter in network.get_parameters():
            parameter.set_data(Tensor(weights[parameter.name].astype(np.float32)))
        outs[paths] = network(x).asnumpy()
    mixed = weights["alpha"] * outs["attention"] + weights["beta"] * outs["convolution"]
    assert largest_error(outs["both"], mixed) < 1e-5
    names = {paths: {p.name for p in network.get_parameters()} for paths, network in networks.items()}
    assert not any(name.startswith(("convolution", "alpha", "beta")) for name in names["attention"])
    assert not any(name.startswith(("attention", "alpha", "beta")) for name in names["convolution"])


def test_alpha_and_beta_start_at_a_half():
    """The paper's initial value of both."""
    network = ACmix(3, CHANNELS)
    assert network.alpha.asnumpy().tolist() == network.beta.asnumpy().tolist() == [0.5]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"kernel_att": 4}, "kernel_att"),
        ({"kernel_conv": 2}, "kernel_conv"),
        ({"heads": 3}, "heads"),
        ({"heads": 0}, "heads"),
        ({"stride": 0}, "stride"),
        ({"dilation": 1.5}, "dilation"),
        ({"out_channels": -8}, "out_channels"),
        ({"paths": "all"}, "paths"),
        ({"shift": "roll"}, "shift"),
    ],
)
def test_what_cannot_work_is_refused_when_built(arguments, named):
    """The message names the argument."""
    with pytest.raises(ValueError, match=named):
        ACmix(**{"in_channels": 3, "out_channels": CHANNELS, **arguments})


def test_an_unknown_feature_size_is_refused_when_compiled():
    """A dynamic batch is fine; a dynamic height or width has no constants, and must say so."""
    x = Tensor(np.random.default_rng(0).standard_normal((2, 3, 6, 6)).astype(np.float32))
    network = ACmix(3, CHANNELS)
    expected = network(x).asnumpy()
    network.set_inputs(Tensor(shape=(None, 3, 6, 6), dtype=ms.float32))
    assert largest_error(network(x).asnumpy(), expected) < 1e-6
    network.set_inputs(Tensor(shape=(2, 3, None, None), dtype=ms.float32))
    with pytest.raises(ValueError, match="height and width"):
        network(x)
