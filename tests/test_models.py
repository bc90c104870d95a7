# SPDX-License-Identifier: Apache-2.0
"""The ResNets against the published ones, and the options of `create_model`."""

import mindspore as ms
import numpy as np
import pytest
from golden import rule
from golden_network import GOLDEN, golden_network
from mindspore import Tensor
from sgd_step import SgdStep

from src.models import create_model, list_models
from src.models.complexity import count_multiply_adds, count_parameters
from src.models.published import published_names
from src.models.resnet import PUBLISHED

SMALL = {"num_classes": 10, "image_size": 32, "stem": "small", "width": 8, "depths": [1, 1, 1, 1]}


@pytest.fixture(autouse=True)
def graph_mode():
    ms.set_context(mode=ms.GRAPH_MODE)


def images(*shape, seed=0):
    return Tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def published(depth):
    """Return ACmix-ResNet with the rule-made weights, whose count is checked, the golden record, and the image."""
    golden, network = golden_network(f"acmix_resnet{depth}", PUBLISHED)
    return network, golden, Tensor(rule.make_input(golden["input_shape"], golden["seed"]))


@pytest.mark.parametrize("depth", [26, 38, 50])
def test_equals_the_published_network(depth):
    """Parameter count and logits, from rule-made weights through the name map."""
    network, _, image = published(depth)
    logits = network.set_train(False)(image).asnumpy()
    expected = np.load(GOLDEN / f"acmix_resnet{depth}.npz")["eval_logits"]
    assert np.abs(logits - expected).max() < 1e-3 * np.abs(expected).max()


def test_trains_as_the_published_network():
    """First gradients and first losses. (The second loss of the deeper ones is beyond float32.)"""
    network, golden, image = published(26)
    step = SgdStep(network.set_train(), **golden["sgd"])
    label = Tensor(np.array(golden["labels"], np.int32))
    first, gradients = step(image, label)
    second, _ = step(image, label)
    assert abs(first.asnumpy() / golden["losses"][0] - 1) < 1e-5
    assert abs(second.asnumpy() / golden["losses"][1] - 1) < 1e-3
    norms = golden["grad_norms"]
    largest = max(norms.values())
    for parameter, gradient in zip(network.trainable_params(), gradients):
        names = published_names(parameter.name, PUBLISHED)
        for name, part in zip(names, np.split(gradient.asnumpy(), len(names))):
            assert abs(np.linalg.norm(part) - norms.pop(name)) < 1e-3 * largest, name
    assert not norms


@pytest.mark.parametrize("name", ["acmix_resnet26", "resnet26", "sasa_resnet26"])
def test_trains_and_evaluates_in_graph_mode(name):
    """Forward and backward of each family: a step on one batch must lower its loss."""
    ms.set_seed(0)
    network = create_model(name, **SMALL, in_channels=1)
    step = SgdStep(network.set_train(), 0.05, 0.9, 0.0)
    image, label = images(4, 1, 32, 32), Tensor([0, 1, 2, 3], ms.int32)
    losses = [float(step(image, label)[0].asnumpy()) for _ in range(6)]
    assert losses[-1] < 0.5 * losses[0]
    assert network.set_train(False)(image).shape == (4, 10)


def test_list_models_takes_patterns():
    """Names are the interface of configs and scripts."""
    assert list_models("acmix_resnet*") == ["acmix_resnet26", "acmix_resnet38", "acmix_resnet50"]
    assert {"resnet26", "resnet38", "resnet50", "sasa_resnet26", "sasa_resnet38", "sasa_resnet50"} < set(list_models())
    assert list_models("nothing*") == []


CONVOLUTION = {"kernel_conv", "paths", "shift"}
RESNET = {"depths", "stem", "width", "zero_init_residual"}
SWIN = {"depths", "width", "heads", "window", "patch", "mlp_ratio"}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet26", RESNET),
        ("acmix_resnet26", RESNET | CONVOLUTION | {"kernel_att", "heads"}),
        ("sasa_resnet26", RESNET | CONVOLUTION | {"kernel_att", "heads"}),
        ("san10", {"depths", "stem", "width"}),
        ("acmix_san10", {"depths", "stem", "width"} | CONVOLUTION),
        ("swin_tiny", SWIN),
        ("acmix_swin_tiny", SWIN | CONVOLUTION),
        ("pvt_tiny", {"depths", "width", "position_size"}),
        ("acmix_pvt_tiny", {"depths", "width", "position_size"} | CONVOLUTION),
    ],
)
def test_a_model_takes_the_options_of_its_backbone_and_its_operator(name, options):
    """A plain model has no option of ACmix, which would do nothing there; the message lists what there is."""
    with pytest.raises(ValueError, match="has no option 'nonsense'; it takes ") as refusal:
        create_model(name, nonsense=1)
    assert set(str(refusal.value).split("it takes ")[1].split(", ")) == options


def test_an_option_overrides_the_models_own_value():
    """`sasa_resnet26` is attention alone unless told otherwise, and every option reaches the operator."""
    options = {"kernel_att": 5, "heads": 2, "kernel_conv": 5, "shift": "fixed"}
    own = create_model("sasa_resnet26", **SMALL).layer1[0].conv2
    told = create_model("sasa_resnet26", **SMALL, paths="both", **options).layer1[0].conv2
    assert own.has_attention and not own.has_convolution
    assert told.has_attention and (told.attention.kernel, told.attention.heads) == (5, 2)
    assert told.convolution.shift.kernel == 5 and not told.convolution.shift.weight.requires_grad


def test_plain_resnet50_is_the_known_one():
    """25,557,032 parameters and 4.09 G multiply-adds: torchvision's ResNet-50 (v1.5), counted by our own code."""
    network = create_model("resnet50").set_train(False)
    assert count_parameters(network) == 25_557_032
    assert round(count_multiply_adds(network, (1, 3, 224, 224)) / 1e9, 2) == 4.09


def test_multiply_adds_scale_with_the_batch_and_leave_graph_mode_on():
    """Counting runs operator by operator, and must not leave that mode behind."""
    network = create_model("acmix_resnet26", **SMALL).set_train(False)
    assert count_multiply_adds(network, (2, 3, 32, 32)) == 2 * count_multiply_adds(network, (1, 3, 32, 32))
    assert ms.get_context("mode") == ms.GRAPH_MODE


def test_zero_init_residual_starts_as_the_shortcuts():
    """With every last scale at zero, nothing inside the blocks can change the output."""
    network = create_model("acmix_resnet26", **SMALL, zero_init_residual=True).set_train(False)
    before = network(images(2, 3, 32, 32)).asnumpy()
    for parameter in network.get_parameters():
        if ".conv2." in parameter.name:
            parameter.set_data(parameter + 1)
    assert np.array_equal(network(images(2, 3, 32, 32)).asnumpy(), before)


def test_drop_path_drops_in_training_only():
    """Evaluation is deterministic; training drops whole branches, so two passes differ."""
    network = create_model("resnet26", **SMALL, drop_path_rate=0.9)
    x = images(4, 3, 32, 32)
    network.set_train(False)
    assert np.array_equal(network(x).asnumpy(), network(x).asnumpy())
    network.set_train()
    assert not np.array_equal(network(x).asnumpy(), network(x).asnumpy())


@pytest.mark.parametrize(
    ("name", "arguments", "named"),
    [
        ("acmix_resnet27", {}, "acmix_resnet26"),
        ("acmix_resnet26", {"stemm": "small"}, "stemm"),
        ("resnet26", {"heads": 4}, "heads"),
        ("resnet26", {"width": 0}, "width"),
        ("resnet26", {"depths": [1, 1, 1]}, "depths"),
        ("acmix_resnet26", {"stem": "tiny"}, "small"),
        ("acmix_resnet26", {"heads": 3}, "heads"),
        ("acmix_resnet26", {"image_size": 16}, "image_size"),
        ("acmix_resnet26", {"num_classes": 0}, "num_classes"),
        ("acmix_resnet26", {"in_channels": 0}, "in_channels"),
        ("acmix_resnet26", {"drop_path_rate": 1.0}, "drop_path_rate"),
        ("acmix_resnet26", {"width": 6}, "divisible"),
    ],
)
def test_what_cannot_be_built_is_refused(name, arguments, named):
    """The message names the argument, or what to write instead."""
    with pytest.raises(ValueError, match=named):
        create_model(name, **arguments)
