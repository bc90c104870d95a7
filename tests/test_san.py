# SPDX-License-Identifier: Apache-2.0
"""Patchwise attention against its definition, the SANs against the published ones, and ACmix-SAN."""

import mindspore as ms
import numpy as np
import pytest
from exported_run import write_run
from golden import rule
from golden_network import GOLDEN, golden_network
from mindspore import Tensor, nn, ops
from sgd_step import SgdStep

from src.deploy.export import export_checkpoint
from src.models import create_model
from src.models.complexity import count_multiply_adds, count_parameters
from src.models.published import published_names
from src.models.san import PUBLISHED
from src.ops.neighbourhood import reflect
from src.ops.patchwise_attention import PatchwiseAttention
from src.training.checkpoint import save_weights
from src.training.network import build_network

SMALL = {"num_classes": 10, "image_size": 20, "stem": "small", "width": 32, "in_channels": 1, "depths": [1] * 5}


@pytest.fixture(autouse=True)
def graph_mode():
    ms.set_context(mode=ms.GRAPH_MODE)


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


class ByDefinition(nn.Cell):
    """Patchwise attention from unfolded keys and values, with the Cells of a `PatchwiseAttention`."""

    def __init__(self, attention, height, width):
        super().__init__(auto_prefix=False)
        self.attention = attention
        taps = np.arange(attention.kernel) - attention.kernel // 2
        rows = reflect(np.arange(height) + taps[:, None], height)
        columns = reflect(np.arange(width) + taps[:, None], width)
        self.index = Tensor((rows[:, None, :, None] * width + columns[None, :, None, :]).reshape(-1))

    def construct(self, qkv):
        a, d = self.attention, self.attention.query_channels
        batch, channels, height, width = qkv.shape
        taps = ops.gather(qkv.reshape(batch, channels, -1), self.index, 2).reshape(batch, channels, -1, height, width)
        keys, values = taps[:, d : 2 * d], taps[:, 2 * d :]
        patch = a.relu(a.norm1(ops.concat((qkv[:, :d], keys.reshape(batch, -1, height, width)), 1)))
        weights = a.linear2(a.relu(a.norm2(a.linear1(patch))))
        weights = weights.reshape(batch, 1, a.weights, -1, height, width)
        values = values.reshape(batch, a.share, a.weights, -1, height, width)
        return (weights * values).sum(3).reshape(batch, -1, height, width)


@pytest.mark.parametrize(
    ("device", "kernel", "height", "width"),
    [
        *(("CPU", *sizes) for sizes in [(3, 4, 5), (7, 7, 7), (7, 3, 16), (5, 9, 2), (7, 1, 1), (1, 2, 9)]),
        *(("Ascend", *sizes) for sizes in [(3, 4, 5), (7, 3, 16)]),
    ],
)
def test_equals_its_definition(device, kernel, height, width, built_for):
    """Outputs and all gradients, also with kernels larger than the map and widths that no segment divides."""
    built_for(device)
    attention = PatchwiseAttention(query_channels=3, channels=8, kernel=kernel, share=4).set_train()
    for number, parameter in enumerate(attention.get_parameters()):
        parameter.set_data(Tensor(random(*parameter.shape, seed=number) + 1))
    qkv, cotangent = Tensor(random(2, 14, height, width)), Tensor(random(2, 8, height, width, seed=1))
    results = []
    for cell in (attention, ByDefinition(attention, height, width)):
        out, pull_back = ms.vjp(cell, qkv, weights=attention.trainable_params())
        dx, dweights = pull_back(cotangent)
        results.append([out.asnumpy(), dx[0].asnumpy(), *(dweight.asnumpy() for dweight in dweights)])
    for ours, expected in zip(*results):
        np.testing.assert_allclose(ours, expected, atol=2e-5 * max(1, np.abs(expected).max()))


def published(depth):
    """`san<depth>` with the rule-made weights, and its golden record."""
    golden, network = golden_network(f"san{depth}", PUBLISHED)
    network.set_train()
    golden["image"] = Tensor(rule.make_input(golden["input_shape"], golden["seed"]))
    golden["logits"] = np.load(GOLDEN / f"san{depth}.npz")["train_logits"]
    return network, golden


def test_san10_equals_the_published_network():
    """Logits, first gradients and first losses, from rule-made weights through the name map.

    In float64 the published code's second loss and gradients are 3e-3 and 2.5e-3 away from the golden ones, with
    noise of 1e-6 on its input 8e-3 and 3.4e-3.
    """
    network, golden = published(10)
    expected = golden["logits"]
    assert np.abs(network(golden["image"]).asnumpy() - expected).max() < 1e-3 * np.abs(expected).max()

    step = SgdStep(network, **golden["sgd"])
    label = Tensor(np.array(golden["labels"], np.int32))
    first, gradients = step(golden["image"], label)
    second, _ = step(golden["image"], label)
    assert abs(first.asnumpy() / golden["losses"][0] - 1) < 1e-5
    assert abs(second.asnumpy() / golden["losses"][1] - 1) < 1e-2
    norms = golden["grad_norms"]
    largest = max(norms.values())
    shapes = dict(golden["tensors"])
    for parameter, gradient in zip(network.trainable_params(), gradients):
        names = published_names(parameter.name, PUBLISHED)
        ends = np.cumsum([shapes[name][0] for name in names])[:-1]
        for name, part in zip(names, np.split(gradient.asnumpy(), ends)):
            assert abs(np.linalg.norm(part) - norms.pop(name)) < 5e-3 * largest, name
    assert not norms


@pytest.mark.parametrize("depth", [15, 19])
def test_larger_sans_equal_the_published_networks(depth):
    """Parameter counts and logits."""
    network, golden = published(depth)
    expected = golden["logits"]
    assert np.abs(network(golden["image"]).asnumpy() - expected).max() < 1e-3 * np.abs(expected).max()


@pytest.mark.parametrize(("depth", "parameters", "multiply_adds"), [(10, 12.1, 1.9), (15, 16.6, 2.7), (19, 21.2, 3.4)])
def test_acmix_san_has_the_published_size(depth, parameters, multiply_adds):
    """Millions of parameters and giga multiply-adds at 224 x 224 in the paper's table, counted by our own code."""
    network = create_model(f"acmix_san{depth}").set_train(False)
    assert abs(count_parameters(network) / 1e6 - parameters) < 0.4
    assert abs(count_multiply_adds(network, (1, 3, 224, 224)) / 1e9 - multiply_adds) < 0.15


def test_acmix_with_beta_zero_is_plain_san():
    """The two families share all but the convolution path: its weight at zero leaves the plain network."""
    plain = create_model("san10", **SMALL).set_train(False)
    acmix = create_model("acmix_san10", **SMALL).set_train(False)
    values = {name: parameter.asnumpy() for name, parameter in plain.parameters_and_names()}
    for name, parameter in acmix.parameters_and_names():
        if name.endswith("sam.alpha") or name.endswith("sam.beta"):
            parameter.set_data(Tensor([float(name.endswith("alpha"))], ms.float32))
        elif name in values:
            parameter.set_data(Tensor(values.pop(name)))
    assert not values
    x = Tensor(random(2, 1, 20, 20))
    np.testing.assert_allclose(acmix(x).asnumpy(), plain(x).asnumpy(), rtol=1e-5, atol=1e-6)


def test_exports_to_onnx(tmp_path):
    """The exporter knows all operators, and the file passes its check, at a size that no segment divides.

    Without softmax, activations that the statistics of the norms do not fit grow beyond float32 within a few blocks:
    so the weights get statistics of their own, and logits without bias, which would hide what comes before.
    """
    options = "--model.name acmix_san10 --model.image_size 20 --model.options.width 32"
    config = write_run(tmp_path, *options.split())
    network = build_network(config.model).set_train()
    network.fc.bias.set_data(Tensor(np.zeros(10, np.float32)))
    images = Tensor(random(8, 1, 20, 20))
    for _ in range(40):
        network(images)
    save_weights(tmp_path / "best.ckpt", network, {})
    ((_, card),) = export_checkpoint(config, tmp_path / "best.ckpt", ["onnx"]).items()
    assert card["max_difference"] < 2e-5


@pytest.mark.parametrize(
    ("name", "arguments", "named"),
    [
        ("san10", {"stem": "tiny"}, "small"),
        ("san10", {"image_size": 31}, "image_size"),
        ("acmix_san10", {"width": 48}, "width"),
        ("acmix_san10", {"kernel_conv": 2}, "kernel_conv"),
        ("san10", {"shift": "slice"}, "shift"),
        ("acmix_san10", {"paths": "none"}, "paths"),
        ("san10", {"drop_path_rate": 1.0}, "drop_path_rate"),
    ],
)
def test_what_cannot_be_built_is_refused(name, arguments, named):
    """The message names the argument, or what to write instead."""
    with pytest.raises(ValueError, match=named):
        create_model(name, **arguments)


def test_an_image_too_small_is_refused_when_compiled():
    """A Cell is not tied to the size it was built for, but nothing is left of 15 pixels after four max pools."""
    network = create_model("san10", **SMALL)
    with pytest.raises(ValueError, match="at least 16 x 16 pixels, got 15 x 40"):
        network(Tensor(random(1, 1, 15, 40)))
