# SPDX-License-Identifier: Apache-2.0
"""The Pyramid Vision Transformers: plain against the published ones, ACmix against the published table."""

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
from src.models.image_size import resizers
from src.models.published import published_names
from src.models.pvt import PUBLISHED, resize_position
from src.ops.acmix import ConvolutionPath
from src.ops.spatial_reduction_attention import (
    FoldedConvolutionPath,
    GridConvolution,
    SpatialReductionAttention,
)

SMALL = {"num_classes": 10, "image_size": 32, "width": 8, "depths": [1, 1, 1, 1]}


@pytest.fixture(autouse=True)
def graph_mode():
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_seed(0)


def noise(*shape, seed=0):
    return Tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def randomise(cell):
    """Give every parameter of a cell a value that nothing else shares."""
    for number, parameter in enumerate(cell.get_parameters()):
        parameter.set_data(noise(*parameter.shape, seed=number))
    return cell


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_equals_the_published_network(size):
    """Parameter count and logits, from rule-made weights through the name map; of one size, gradients and losses."""
    golden, network = golden_network(f"pvt_{size}", PUBLISHED)

    image = Tensor(rule.make_input(golden["input_shape"], golden["seed"]))
    logits = network.set_train(False)(image).asnumpy()
    expected = np.load(GOLDEN / f"pvt_{size}.npz")["eval_logits"]
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()
    if size != "tiny":
        return

    step = SgdStep(network.set_train(), **golden["sgd"])
    label = Tensor(np.array(golden["labels"], np.int32))
    first, gradients = step(image, label)
    second, _ = step(image, label)
    assert abs(first.asnumpy() / golden["losses"][0] - 1) < 1e-5
    assert abs(second.asnumpy() / golden["losses"][1] - 1) < 1e-3
    norms = golden["grad_norms"]
    largest = max(norms.values())
    for parameter, gradient in zip(network.trainable_params(), gradients):
        (name,) = published_names(parameter.name, PUBLISHED)
        assert abs(np.linalg.norm(gradient.asnumpy()) - norms.pop(name)) < 1e-3 * largest, name
    assert not norms


@pytest.mark.parametrize(("size", "parameters", "multiply_adds"), [("tiny", 13e6, 2.0e9), ("small", 25e6, 3.9e9)])
def test_acmix_is_as_large_as_the_published_table_says(size, parameters, multiply_adds):
    """Nobody published its code; the table bounds what can have been added to the plain network."""
    network = create_model(f"acmix_pvt_{size}").set_train(False)
    assert abs(count_parameters(network) - parameters) < 0.4e6
    assert abs(count_multiply_adds(network, (1, 3, 224, 224)) - multiply_adds) < 0.15e9


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("pvt_tiny", {}),
        ("acmix_pvt_tiny", {}),
        ("acmix_pvt_tiny", {"shift": "slice"}),
        ("acmix_pvt_tiny", {"paths": "convolution"}),
    ],
)
def test_trains_and_evaluates_in_graph_mode(name, options):
    """Steps on one batch must lower its loss, and every parameter of ACmix must take part."""
    network = create_model(name, **SMALL, in_channels=1, **options)
    step = SgdStep(network.set_train(), 0.1, 0.9, 0.0)
    image, label = noise(4, 1, 32, 32), Tensor([0, 1, 2, 3], ms.int32)
    losses = []
    for _ in range(15):
        loss, gradients = step(image, label)
        losses.append(float(loss.asnumpy()))
    assert losses[-1] < 0.5 * losses[0]
    idle = [p.name for p, g in zip(network.trainable_params(), gradients) if not np.any(g.asnumpy())]
    # Of an image this small attention sees one key in most stages, and its query learns from the convolution alone.
    assert not idle or name == "pvt_tiny", idle
    assert network.set_train(False)(image).shape == (4, 10)


@pytest.mark.parametrize(("heads", "shift"), [(1, "learnable"), (2, "fixed"), (2, "slice"), (3, "learnable")])
def test_folded_path_equals_the_path(heads, shift):
    """One convolution in place of two, on a map that is not square."""
    sizes = (3 * heads, 4, 4 * heads, 3)
    folded, plain = (randomise(cell(*sizes, shift=shift)) for cell in (FoldedConvolutionPath, ConvolutionPath))
    assert folded.is_folded == (heads < 3 and shift != "slice")
    maps = noise(2, 12 * heads, 5, 7)
    expected = plain(maps).asnumpy()
    assert np.abs(folded(maps).asnumpy() - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 7), (7, 6), (3, 11)])
def test_convolution_sees_keys_and_values_repeated(height, width):
    """Each key and value stands for the r x r queries it was made of, and the last also for those left over."""
    r = 3 if height == 3 or width == 11 else 2
    cell = randomise(GridConvolution(8, 2, r, 3, "learnable"))
    query, key_value = noise(2, 8, 1, height * width, seed=1), noise(2, 16, 1, (height // r) * (width // r), seed=2)
    low = key_value.asnumpy().reshape(2, 16, height // r, width // r)
    high = query.asnumpy().reshape(2, 8, height, width)
    rows, columns = (np.minimum(np.arange(size) // r, size // r - 1) for size in (height, width))
    maps = np.concatenate([high, low[:, :, rows[:, None], columns]], axis=1)
    expected = cell.path(Tensor(maps)).asnumpy().reshape(query.shape)
    assert np.allclose(cell((query, key_value, (height, width))).asnumpy(), expected, atol=1e-5)


def test_class_token_gets_the_mean_of_the_convolution():
    """It has no place on the grid, must not move the others, and still hears of them."""
    cell = randomise(SpatialReductionAttention(8, 2, paths="convolution"))
    tokens = noise(2, 10, 8)
    out = cell((tokens, (3, 3))).asnumpy()
    assert np.allclose(out[:, 0], out[:, 1:].mean(1), atol=1e-5)
    changed = tokens.asnumpy().copy()
    changed[:, 0] += 1
    assert np.allclose(cell((Tensor(changed), (3, 3))).asnumpy(), out, atol=1e-5)


@pytest.mark.parametrize(
    ("before", "old", "new"),
    [
        (0, (7, 7), (12, 12)),
        (1, (7, 7), (12, 9)),
        (1, (8, 5), (6, 8)),
        (0, (1, 1), (3, 2)),
        (1, (4, 6), (3, 8)),
        (1, (5, 5), (5, 5)),
    ],
)
def test_positions_are_resized_bilinearly(before, old, new):
    """As OpenCV resizes an image; class tokens stay as they are."""
    table = noise(1, before + old[0] * old[1], 3).asnumpy()
    resized = resize_position(table, old, new)
    image = table[0, before:].reshape(*old, 3)
    expected = cv2.resize(image, new[::-1], interpolation=cv2.INTER_LINEAR).reshape(-1, 3)
    assert resized.shape == (1, before + new[0] * new[1], 3) and resized.dtype == np.float32
    assert np.array_equal(resized[:, :before], table[:, :before])
    assert np.allclose(resized[0, before:], expected, atol=1e-5)


def test_positions_that_cannot_be_of_the_grid_are_refused():
    """Silently reshaping another table would scramble a checkpoint."""
    with pytest.raises(ValueError, match="48 positions"):
        resize_position(np.zeros((1, 48, 3), np.float32), (7, 7), (8, 8))


def test_a_file_of_another_size_is_interpolated_from_the_grid_it_is_of():
    """4 x 6 patches and 3 x 8 are as many; without a size a file is of squares, and what may be either is refused."""
    sizes = {"image_size": [96, 256]}
    embedding = create_model("pvt_tiny", **{**SMALL, **sizes}).embedding4
    assert embedding.grid == (3, 8)
    table = noise(1, 25, 64).asnumpy()
    assert np.array_equal(embedding.resized(table, [128, 192]), resize_position(table, (4, 6), (3, 8)))
    for size in (None, [96, 256], 224):
        assert embedding.resized(table, size) is table
    square = noise(1, 50, 64).asnumpy()
    assert np.array_equal(embedding.resized(square), resize_position(square, (7, 7), (3, 8)))
    embedding = create_model("pvt_tiny", **{**SMALL, "image_size": (32, 128)}).embedding4
    with pytest.raises(ValueError, match="1 x 4 or 2 x 2 patches"):
        embedding.resized(noise(1, 5, 64).asnumpy())


@pytest.mark.parametrize(
    ("name", "features_only", "size"),
    [
        ("pvt_tiny", False, (75, 141)),
        ("pvt_tiny", True, (96, 64)),
        ("acmix_pvt_tiny", False, (32, 32)),
        ("acmix_pvt_tiny", True, (75, 141)),
    ],
)
def test_images_of_another_size(name, features_only, size):
    """The graph interpolates positions as loading a checkpoint does, also where patches leave some pixels over."""
    network, other = (
        create_model(name, features_only=features_only, **{**SMALL, "image_size": image_size}).set_train(False)
        for image_size in ((64, 96), size)
    )
    values = {parameter.name: parameter.asnumpy() for parameter in randomise(network).get_parameters()}
    for table, resized in resizers(other).items():
        values[table] = resized(values[table], [64, 96])
    for parameter in other.get_parameters():
        parameter.set_data(Tensor(values[parameter.name]))
    image = noise(2, 3, *size)
    outputs = network(image)
    ms.set_context(mode=ms.PYNATIVE_MODE)  # sparing a compilation
    expected = other(image)
    if features_only:
        grids = [(size[0] // stride, size[1] // stride) for stride in (4, 8, 16, 32)]
        assert [output.shape[2:] for output in outputs] == grids
    else:
        outputs, expected = [outputs], [expected]
    for output, wanted in zip(outputs, expected):
        assert np.abs(output.asnumpy() - wanted.asnumpy()).max() < 1e-5 * np.abs(wanted.asnumpy()).max()


def test_trains_on_another_size():
    """Gradients reach the tables through the interpolation."""
    network = create_model("acmix_pvt_tiny", **SMALL, in_channels=1)
    step = SgdStep(network.set_train(), 0.1, 0.9, 0.0)
    image, label = noise(4, 1, 40, 70), Tensor([0, 1, 2, 3], ms.int32)
    losses = []
    for _ in range(15):
        loss, gradients = step(image, label)
        losses.append(float(loss.asnumpy()))
    assert losses[-1] < 0.5 * losses[0]
    assert all(np.any(gradient.asnumpy()) for gradient in gradients)


def test_images_that_are_too_small_are_refused():
    """While the graph is compiled, not by a message about shapes deep inside."""
    with pytest.raises(ValueError, match="from 32 x 32 pixels, got 64 x 31"):
        create_model("pvt_tiny", **SMALL)(noise(1, 3, 64, 31))


@pytest.mark.parametrize(
    ("name", "arguments", "named"),
    [
        ("pvt_tiny", {"image_size": (31, 64)}, "image_size must be at least 32"),
        ("pvt_tiny", {"depths": [2, 2, 2]}, "depths"),
        ("pvt_tiny", {"depths": [2, 2, 2, 0]}, "depths"),
        ("pvt_tiny", {"width": 0}, "width"),
        ("pvt_tiny", {"shift": "slice"}, "shift"),
        ("acmix_pvt_tiny", {"kernel_conv": 2}, "kernel_conv"),
        ("acmix_pvt_tiny", {"paths": "all"}, "paths"),
        ("acmix_pvt_tiny", {"shift": "roll"}, "shift"),
        ("pvt_tiny", {"position_size": 16}, "position_size"),
    ],
)
def test_what_cannot_be_built_is_refused(name, arguments, named):
    """The message names the argument."""
    with pytest.raises(ValueError, match=named):
        create_model(name, **{**SMALL, **arguments})


def test_a_classifiers_positions_fit_a_network_without_class_token():
    """Protects fine-tuning a segmenter from a classifier: the row of the class token is left out, at any image size."""
    classifier = create_model("pvt_tiny", 10, 96, width=8, depths=[1, 1, 1, 1])
    table = np.random.default_rng(0).standard_normal(classifier.embedding4.position.shape).astype(np.float32)
    for size in (96, 160):
        embedding = create_model("pvt_tiny", 10, size, width=8, depths=[1, 1, 1, 1], features_only=True).embedding4
        expected = resize_position(table[:, 1:], (3, 3), (size // 32, size // 32))
        for image_size in (None, 96):
            np.testing.assert_array_equal(embedding.resized(table, image_size), expected)


def test_positions_of_another_size_than_the_images():
    """Protects `position_size`: tables and results of a network of that size, whatever size a file says it is for."""
    ms.set_seed(1)
    options = {**SMALL, "features_only": True}
    own, other = (
        create_model("pvt_tiny", **{**options, **sizes})
        for sizes in ({"image_size": 64}, {"image_size": 96, "position_size": [64, 64]})
    )
    values = {p.name: p for p in own.get_parameters()}
    for parameter in other.get_parameters():
        parameter.set_data(values[parameter.name])
    image = noise(1, 3, 96, 128)
    for a, b in zip(own(image), other(image)):
        np.testing.assert_array_equal(a.asnumpy(), b.asnumpy())
    classifier = noise(1, 1 + 2 * 2, 64).asnumpy()
    for table in (classifier, classifier[:, 1:]):
        np.testing.assert_array_equal(other.embedding4.resized(table, 96), classifier[:, 1:])
