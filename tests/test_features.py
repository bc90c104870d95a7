# SPDX-License-Identifier: Apache-2.0
"""`features_only`: the maps of the four stages, with the weights of a classifier and for images of other sizes."""

import math

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from src.config import ModelConfig
from src.errors import UserError
from src.models import create_model
from src.training.network import build_network

RESNET = {"image_size": 45, "width": 8, "depths": [1, 1, 1, 1]}
SAN = {"image_size": 37, "width": 32, "depths": [1, 1, 1, 1, 1], "stem": "small"}
SWIN = {"image_size": 45, "width": 8, "heads": 1, "depths": [2, 1, 1, 1], "window": 3, "patch": 2}
PVT = {"image_size": 64, "width": 8, "depths": [1, 1, 1, 1]}
RESNET_HEAD, SWIN_HEAD = {"fc.weight", "fc.bias"}, {"norm.gamma", "norm.beta", "head.weight", "head.bias"}
PVT_HEAD = SWIN_HEAD | {"embedding4.class_token"}

# Model, small options, sides of its maps, the Cells that end its stages, what only a classifier has.
MODELS = [
    ("resnet26", RESNET, (12, 6, 3, 2), "layer{}", RESNET_HEAD),
    ("acmix_resnet26", {**RESNET, "stem": "small", "image_size": 21}, (21, 11, 6, 3), "layer{}", RESNET_HEAD),
    ("san10", SAN, (18, 9, 4, 2), "level{}", RESNET_HEAD),
    ("acmix_san10", {**SAN, "stem": "imagenet"}, (9, 4, 2, 1), "level{}", RESNET_HEAD),
    ("swin_tiny", {**SWIN, "depths": [1, 1, 1, 1]}, (23, 12, 6, 3), "layer{}", SWIN_HEAD),
    ("acmix_swin_tiny", {**SWIN, "patch": 4}, (12, 6, 3, 2), "layer{}", SWIN_HEAD),
    ("pvt_tiny", PVT, (16, 8, 4, 2), "stage{}", PVT_HEAD),
    ("acmix_pvt_tiny", PVT, (16, 8, 4, 2), "stage{}", PVT_HEAD),
]


@pytest.fixture(autouse=True)
def graph_mode():
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_seed(0)


def images(*shape, seed=0):
    return Tensor(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def sides_of_map(name, info, height, width):
    """A map's sides by its stride: parts of a pixel count, but for the max pools of SAN and the patches of PVT."""
    rounding = math.floor if "san" in name or "pvt" in name else math.ceil
    return rounding(height / info.stride), rounding(width / info.stride)


class Gradients(nn.Cell):
    """The gradients of all parameters of a network, for cotangents of its maps."""

    def __init__(self, network):
        super().__init__(auto_prefix=False)
        self.network = network
        self.weights = ms.ParameterTuple(network.trainable_params())
        self.gradient = ops.GradOperation(get_by_list=True, sens_param=True)

    def construct(self, image, cotangents):
        return self.gradient(self.network, self.weights)(image, cotangents)


def maps_of_classifier(name, classifier, stages, image):
    """What the four stages of a classifier give, as (B, C, H, W), run operator by operator."""
    outputs = []
    for stage in (1, 2, 3, 4):
        cell = classifier.name_cells()[stages.format(stage)]
        cell.register_forward_hook(lambda cell, inputs, output: outputs.append(output))
    ms.set_context(mode=ms.PYNATIVE_MODE)  # hooks are not part of graphs
    classifier(image)
    if "swin" in name:
        outputs = [output.transpose(0, 3, 1, 2) for output in outputs]
    if "pvt" in name:
        # Without the class token, which the published code for detection leaves out, the last stage is another.
        maps, embedding = [classifier.as_map(output) for output in outputs[:3]], classifier.embedding4
        tokens = embedding.norm(embedding.projection(maps[2]).flatten(start_dim=2).swapaxes(1, 2))
        last = classifier.stage4((tokens + embedding.position[:, 1:], embedding.grid))
        outputs = [*maps, classifier.as_map(last)]
    ms.set_context(mode=ms.GRAPH_MODE)
    return [output.asnumpy() for output in outputs]


@pytest.mark.parametrize(("name", "options", "sides", "stages", "head"), MODELS, ids=[model[0] for model in MODELS])
def test_features_are_the_maps_of_the_classifier(name, options, sides, stages, head):
    """Shapes as `feature_info` says, values as the classifier's whose weights they take."""
    classifier = create_model(name, num_classes=10, **options).set_train(False)
    network = create_model(name, features_only=True, **options).set_train(False)
    weights = {parameter.name: parameter for parameter in classifier.get_parameters()}
    for parameter in network.get_parameters():
        weight = weights.pop(parameter.name)
        if parameter.name == "embedding4.position":
            weight = ms.Parameter(weight[:, 1:])
        assert weight.shape == parameter.shape
        parameter.set_data(weight)
    assert set(weights) == head

    image = images(2, 3, options["image_size"], options["image_size"])
    expected = maps_of_classifier(name, classifier, stages, image)
    maps = network(image)
    for output, info, side, wanted in zip(maps, network.feature_info, sides, expected, strict=True):
        assert output.shape == (2, info.channels, side, side)
        assert (side, side) == sides_of_map(name, info, *image.shape[2:])
        np.testing.assert_allclose(output.asnumpy(), wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("acmix_resnet26", RESNET),
        ("acmix_san10", SAN),
        ("acmix_swin_tiny", {**SWIN, "depths": [1, 1, 1, 1]}),
        ("acmix_pvt_tiny", PVT),
    ],
)
def test_a_detector_trains_every_parameter(name, options):
    """Nothing is left of the classifier that the maps do not depend on."""
    network = create_model(name, features_only=True, **options).set_train()
    side = options["image_size"]
    cotangents = tuple(
        images(2, info.channels, *sides_of_map(name, info, side, side), seed=1) for info in network.feature_info
    )
    gradients = Gradients(network)(images(2, 3, side, side), cotangents)
    idle = {p.name for p, g in zip(network.trainable_params(), gradients) if not np.any(g.asnumpy())}
    # The bias of the sliding window's positions cancels in the softmax.
    assert all(parameter.endswith("attention.position.bias") for parameter in idle), idle


@pytest.mark.parametrize(
    ("name", "options"),
    [("acmix_resnet26", RESNET), ("acmix_san10", SAN), ("acmix_swin_tiny", SWIN), ("acmix_pvt_tiny", PVT)],
)
def test_detectors_may_feed_other_sizes_than_the_one_built_for(name, options):
    """Images of a detector differ in size and are not square."""
    network = create_model(name, features_only=True, **options).set_train(False)
    for output, info in zip(network(images(1, 3, 40, 70)), network.feature_info, strict=True):
        assert output.shape == (1, info.channels, *sides_of_map(name, info, 40, 70))


def test_training_takes_no_maps():
    """A config that asks for maps is refused: a loss needs logits."""
    with pytest.raises(UserError, match="features_only leaves nothing to train"):
        build_network(ModelConfig("resnet26", options={"features_only": True}))
