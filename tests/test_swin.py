# SPDX-License-Identifier: Apache-2.0
"""The Swin family against the published networks, and its window attention against the definition."""

import cv2
import mindspore as ms
import numpy as np
import pytest
from golden import rule
from golden_network import GOLDEN, golden_network
from mindspore import Tensor
from sgd_step import SgdStep

from src.models import create_model
from src.models.complexity import count_multiply_adds, count_parameters
from src.models.published import published_names
from src.models.swin import PUBLISHED
from src.ops.window_attention import WindowACmix

SMALL = {"num_classes": 10, "image_size": 32, "patch": 2, "width": 16, "heads": 2, "depths": [2, 1, 1, 2], "window": 4}


@pytest.fixture(autouse=True)
def graph_mode():
    ms.set_context(mode=ms.GRAPH_MODE)


def images(*shape, seed=0):
    return Tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def check_logits(name, golden, network):
    logits = network.set_train(False)(Tensor(rule.make_input(golden["input_shape"], golden["seed"]))).asnumpy()
    expected = np.load(GOLDEN / f"{name}.npz")["eval_logits"]
    assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()


def test_acmix_swin_tiny_equals_the_published_network():
    """Parameter count, logits, first gradients and first losses, from rule-made weights through the name map."""
    golden, network = golden_network("acmix_swin_tiny", PUBLISHED)
    check_logits("acmix_swin_tiny", golden, network)

    image = Tensor(rule.make_input(golden["input_shape"], golden["seed"]))
    label = Tensor(np.array(golden["labels"], np.int32))
    step = SgdStep(network.set_train(), **golden["sgd"])
    first, gradients = step(image, label)
    second, _ = step(image, label)
    third, _ = step(image, label)
    losses = [float(loss.asnumpy()) for loss in (first, second, third)]
    assert np.abs(np.array(losses) / golden["losses"] - 1).max() < 1e-4
    assert abs(losses[0] / golden["losses"][0] - 1) < 1e-5
    norms = golden["grad_norms"]
    largest = max(norms.values())
    for parameter, gradient in zip(network.trainable_params(), gradients):
        (name,) = published_names(parameter.name, PUBLISHED)
        assert abs(np.linalg.norm(gradient.asnumpy()) - norms.pop(name)) < 1e-3 * largest, name
    assert not norms


def test_acmix_swin_small_equals_the_published_network():
    """Parameter count and logits: all that differs from tiny is the number of blocks."""
    check_logits("acmix_swin_small", *golden_network("acmix_swin_small", PUBLISHED))


def window_attention_by_definition(cell, x):
    """Attention of each pixel of x (B, H, W, C) over those that share its window and came around the roll with it."""
    batch, height, width, channels = x.shape
    window, shift, attention = cell.window, cell.cyclic_shift, cell.attention
    rows, columns = -(-height // window) * window, -(-width // window) * window
    x = np.pad(x, ((0, 0), (0, rows - height), (0, columns - width), (0, 0))).reshape(batch, -1, channels)
    weight, bias = cell.qkv.weight.asnumpy()[:, :, 0, 0], cell.qkv.bias.asnumpy()
    query, key, value = np.split(x @ weight.T + bias, 3, axis=-1)
    table = attention.position.asnumpy()
    project = attention.project
    heads = np.split(np.arange(channels), attention.heads)
    out = np.zeros_like(x)

    def seat(row, column):
        """Window, place in the window, and whether the roll brought it around, for rows and columns."""
        row, column = (row - shift) % rows, (column - shift) % columns
        around = row + shift >= rows, column + shift >= columns
        return (row // window, column // window), (row % window, column % window), around

    seats = [seat(*divmod(pixel, columns)) for pixel in range(rows * columns)]
    for i, (window_i, place_i, around_i) in enumerate(seats):
        seen = [j for j, (at, _, around) in enumerate(seats) if (at, around) == (window_i, around_i)]
        places = np.array([seats[j][1] for j in seen])
        down, right = (np.array(place_i) - places + window - 1).T
        for n, head in enumerate(heads):
            logits = np.einsum("bc,bjc->bj", query[:, i, head], key[:, seen][..., head]) * len(head) ** -0.5
            weights = np.exp(logits + table[down * (2 * window - 1) + right, n])
            weights /= weights.sum(-1, keepdims=True)
            out[:, i, head] = np.einsum("bj,bjc->bc", weights, value[:, seen][..., head])
    out = out @ project.weight.asnumpy()[:, :, 0, 0].T + project.bias.asnumpy()
    return out.reshape(batch, rows, columns, channels)[:, :height, :width]


@pytest.mark.parametrize(
    ("height", "width", "window", "cyclic_shift"),
    [(6, 6, 3, 0), (6, 9, 3, 1), (8, 4, 4, 2), (5, 7, 3, 1), (2, 3, 4, 2), (1, 1, 1, 0)],
)
def test_window_attention_is_what_it_says(height, width, window, cyclic_shift):
    """Windows, roll, mask, position bias and padding, on maps of whole windows, of other sizes and of one window."""
    cell = WindowACmix(8, 2, window, cyclic_shift, paths="attention")
    for number, parameter in enumerate(cell.get_parameters()):
        parameter.set_data(images(*parameter.shape, seed=number))
    x = images(2, height, width, 8)
    assert np.abs(cell(x).asnumpy() - window_attention_by_definition(cell, x.asnumpy())).max() < 1e-4


def test_without_convolution_acmix_is_the_plain_network():
    """alpha = 1 and beta = 0 leave `swin_tiny`, whose parameters are among those of `acmix_swin_tiny`."""
    acmix, plain = create_model("acmix_swin_tiny", **SMALL), create_model("swin_tiny", **SMALL)
    values = {parameter.name: parameter for parameter in acmix.get_parameters()}
    for name, parameter in values.items():
        if name.endswith((".attn.alpha", ".attn.beta")):
            parameter.set_data(Tensor([1.0 if name.endswith("alpha") else 0.0], ms.float32))
    for parameter in plain.get_parameters():
        parameter.set_data(values[parameter.name])
    x = images(2, 3, 32, 32)
    expected = plain.set_train(False)(x).asnumpy()
    assert np.allclose(acmix.set_train(False)(x).asnumpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_trains_and_evaluates_in_graph_mode():
    """Forward and backward, a map that is not whole windows and stochastic depth included: the loss falls."""
    ms.set_seed(0)
    network = create_model("acmix_swin_tiny", **{**SMALL, "image_size": 27}, in_channels=1, drop_path_rate=0.1)
    step = SgdStep(network.set_train(), 0.05, 0.9, 0.0)
    image, label = images(4, 1, 27, 27), Tensor([0, 1, 2, 3], ms.int32)
    losses = [float(step(image, label)[0].asnumpy()) for _ in range(12)]
    assert min(losses[-3:]) < 0.5 * losses[0]
    assert network.set_train(False)(image).shape == (4, 10)


@pytest.mark.parametrize("image_size", [200, 256, 384])
def test_any_image_size_is_taken(image_size):
    """With patches of 4 and windows of 7 their maps are no whole windows, in all stages or in some."""
    options = {"width": 8, "heads": 1, "depths": [2, 1, 1, 1]}
    network = create_model("acmix_swin_tiny", num_classes=10, image_size=image_size, **options).set_train(False)
    logits = network(images(1, 3, image_size, image_size)).asnumpy()
    assert logits.shape == (1, 10) and np.isfinite(logits).all()


def test_windows_shrink_to_small_maps_and_roll_only_on_larger_ones():
    """At 32 pixels and patches of 2 the maps are 16, 8, 4 and 2: with windows of 4 two stages roll, one shrinks."""
    network = create_model("swin_tiny", **{**SMALL, "depths": [2, 2, 2, 2]})
    stages = (network.layer1, network.layer2, network.layer3, network.layer4)
    cells = [block.attn for stage in stages for block in stage.blocks]
    assert [cell.window for cell in cells] == [4, 4, 4, 4, 4, 4, 2, 2]
    assert [cell.cyclic_shift for cell in cells] == [0, 2, 0, 2, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"),
    [("swin_tiny", 28_288_354, 4.49), ("swin_small", 49_606_258, None), ("acmix_swin_tiny", 28_649_908, 4.65)],
)
def test_sizes_are_the_known_ones(name, parameters, multiply_adds):
    """Microsoft's and the published counts, by our own code; the paper prints 4.6 G for ACmix."""
    network = create_model(name).set_train(False)
    assert count_parameters(network) == parameters
    if multiply_adds:
        assert round(count_multiply_adds(network, (1, 3, 224, 224)) / 1e9, 2) == multiply_adds


@pytest.mark.parametrize(
    ("name", "arguments", "named"),
    [
        ("acmix_swin_tiny", {"heads": 5}, "heads"),
        ("acmix_swin_tiny", {"kernel_conv": 2}, "kernel_conv"),
        ("acmix_swin_tiny", {"kernel_conv": -1}, "kernel_conv"),
        ("acmix_swin_tiny", {"paths": "none"}, "paths"),
        ("acmix_swin_tiny", {"shift": "roll"}, "shift"),
        ("swin_tiny", {"shift": "slice"}, "shift"),
        ("swin_tiny", {"depths": [2, 2]}, "depths"),
        ("swin_tiny", {"depths": [2, 2, 0, 2]}, "depths"),
        ("swin_tiny", {"window": 0}, "window"),
        ("swin_tiny", {"patch": True}, "patch"),
    ],
)
def test_what_cannot_be_built_is_refused(name, arguments, named):
    """The message names the argument."""
    with pytest.raises(ValueError, match=named):
        create_model(name, **arguments)


def test_windows_suit_the_shorter_side():
    """As the published code has it: at 64 x 32 pixels and patches of 2 the maps are 32 x 16 to 4 x 2."""
    network = create_model("swin_tiny", **{**SMALL, "image_size": (64, 32), "depths": [2, 2, 2, 2]}).set_train(False)
    cells = [stage.blocks[1].attn for stage in (network.layer1, network.layer2, network.layer3, network.layer4)]
    assert [(cell.window, cell.cyclic_shift) for cell in cells] == [(4, 2), (4, 2), (4, 0), (2, 0)]
    assert network(images(1, 3, 64, 32)).shape == (1, 10)


@pytest.mark.parametrize(("old", "new"), [(7, 12), (12, 7), (7, 4), (1, 3), (2, 1), (7, 7)])
def test_tables_of_another_window_are_interpolated(old, new):
    """As OpenCV resizes an image by cubics; what is of the window already is left alone."""
    attention = WindowACmix(6, 3, new).attention
    table = np.random.default_rng(0).standard_normal(((2 * old - 1) ** 2, 3)).astype(np.float32)
    resized = attention.resized(table)
    assert resized.shape == attention.position.shape and resized.dtype == np.float32
    assert (resized is table) == (old == new)
    picture = table.reshape(2 * old - 1, 2 * old - 1, 3)
    expected = cv2.resize(picture, (2 * new - 1, 2 * new - 1), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_allclose(resized, expected.reshape(-1, 3), atol=1e-5)


@pytest.mark.parametrize("shape", [(168, 3), (144, 3), (0, 3), (169,), (13, 13, 3)])
def test_what_is_no_table_of_a_window_is_refused(shape):
    """Any other shape would be scrambled, or end in a message about reshaping; the message names the windows."""
    with pytest.raises(ValueError, match=r"of no window; of windows of 4 x 4, .* of shape \(49, 3\)"):
        WindowACmix(6, 3, 4).attention.resized(np.zeros(shape, np.float32))
