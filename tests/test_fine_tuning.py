# SPDX-License-Identifier: Apache-2.0
"""Beginning with the weights of an earlier training: another head, slow first layers, frozen ones."""

from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from src.config import FinetuneConfig, OptimizerConfig
from src.data.classes import Classes
from src.device import World
from src.errors import UserError
from src.models import create_model
from src.tasks.pretrained_classes import load_pretrained
from src.training.checkpoint import save_weights
from src.training.fine_tuning import freeze, prepare_fine_tuning
from src.training.optimizer import create_optimizer, layer_factors
from src.training.step import TrainStep

# A small model of each family, and per layer from the stem to the head how the names in it begin.
FOUR, SEVEN = (Classes([*names], [*names]) for names in ("abcd", "abcdefg"))
FAMILIES = {
    "acmix_resnet26": (
        {"depths": (1, 2, 1, 1), "width": 8, "image_size": 32},
        (["stem."], ["layer1.0."], ["layer2.0."], ["layer2.1."], ["layer3.0."], ["layer4.0."], ["fc."]),
    ),
    "acmix_san10": (
        {"depths": (1, 1, 2, 1, 1), "width": 32, "image_size": 32},
        (
            ["conv_in.", "bn_in."],
            ["level0.conv.", "level0.layer.0."],
            ["level0.bn.", "level1.conv.", "level1.layer.0."],
            ["level1.bn.", "level2.conv.", "level2.layer.0."],
            ["level2.layer.1."],
            ["level2.bn.", "level3.conv.", "level3.layer.0."],
            ["level3.bn.", "level4.conv.", "level4.layer.0."],
            ["level4.bn.", "fc."],
        ),
    ),
    "acmix_swin_tiny": (
        {"depths": (1, 1, 2, 1), "width": 8, "heads": 1, "image_size": 32},
        (
            ["embed."],
            ["layer1.blocks.0."],
            ["layer2.downsample.", "layer2.blocks.0."],
            ["layer3.downsample.", "layer3.blocks.0."],
            ["layer3.blocks.1."],
            ["layer4.downsample.", "layer4.blocks.0."],
            ["norm.", "head."],
        ),
    ),
    "acmix_pvt_tiny": (
        {"depths": (2, 1, 1, 1), "width": 8, "image_size": 32},
        (
            ["embedding1."],
            ["stage1.0."],
            ["stage1.1."],
            ["embedding2.", "stage2.0."],
            ["embedding3.", "stage3.0."],
            ["embedding4.", "stage4.0."],
            ["norm.", "head."],
        ),
    ),
}


def build(name="acmix_resnet26", num_classes=4, seed=0):
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_seed(seed)
    return create_model(name, num_classes=num_classes, **FAMILIES[name][0])


@pytest.mark.parametrize("name", FAMILIES)
def test_layers_of_each_family(name):
    """Protects layer-wise decay: every trainable parameter has one layer, from the stem to the head."""
    network, layers = build(name), FAMILIES[name][1]
    factors = layer_factors(network, 0.5)
    assert set(factors) == {parameter.name for parameter in network.trainable_params()}
    for depth, beginnings in enumerate(layers):
        for beginning in beginnings:
            inside = {factor for name, factor in factors.items() if name.startswith(beginning)}
            assert inside == {0.5 ** (len(layers) - 1 - depth)}, beginning


class Stack(nn.Cell):
    """Three layers, as far as an optimiser looks at them."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Dense(2, 3), nn.Dense(3, 4), nn.Dense(4, 5, has_bias=False)

    def layers(self):
        return (self.a,), (self.b,), (self.c,)


@pytest.mark.parametrize("name", ["momentum", "adamw", "lamb"])
def test_each_optimizer_slows_the_first_layers(name):
    """Protects layer-wise decay: the first step of a layer is shorter by its factor, decay and schedule as before."""

    def moved(layer_decay):
        ms.set_seed(0)
        network = Stack()
        config = OptimizerConfig(name=name, weight_decay=0.1)
        optimizer = create_optimizer(network, config, np.array([0.1, 0.2], np.float32), layer_decay)
        rng, before = np.random.default_rng(0), {p.name: p.asnumpy().copy() for p in network.trainable_params()}
        gradients = {name: rng.standard_normal(value.shape).astype(np.float32) for name, value in before.items()}
        optimizer(optimizer.flattening.flatten([ms.Tensor(gradients[p.name]) for p in optimizer.parameters]))
        return {p.name: p.asnumpy() - before[p.name] for p in network.trainable_params()}

    plain, slowed = moved(1.0), moved(0.5)
    for parameter, before_head in (("a.weight", 2), ("a.bias", 2), ("b.weight", 1), ("b.bias", 1), ("c.weight", 0)):
        np.testing.assert_allclose(slowed[parameter], 0.5**before_head * plain[parameter], rtol=1e-4, atol=1e-7)


def test_frozen_layers_stay_as_they_are():
    """Protects freezing: after training steps what matches is the same bit for bit, statistics of norms too."""
    network = build()
    line = freeze(network, ["stem.*", "layer[12].*", "*.alpha"])
    assert line.startswith("froze ")
    before = {p.name: p.asnumpy().copy() for p in network.get_parameters()}
    optimizer = create_optimizer(network, OptimizerConfig(), np.full(2, 0.1, np.float32), layer_decay=0.8)
    step = TrainStep(network, nn.CrossEntropyLoss(), optimizer, World())
    image = ms.Tensor(np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32))
    for _ in range(2):
        step(image, ms.Tensor(np.array([0, 1], np.int32)))
    same = {p.name for p in network.get_parameters() if np.array_equal(p.asnumpy(), before[p.name])}
    frozen = {name for name in before if name.startswith(("stem.", "layer1.", "layer2.")) or name.endswith(".alpha")}
    assert frozen <= same
    assert not same & {"layer3.0.conv1.weight", "layer3.0.bn1.moving_mean", "layer4.0.conv2.beta", "fc.weight"}


def test_freezing_in_vain_is_refused():
    """Protects from typing errors: a pattern that matches nothing, or all, names what is near."""
    with pytest.raises(UserError, match=r"called layer5\.\*; did you mean 'layer\d\.\*'\?"):
        freeze(build(), ["stem.*", "layer5.*"])
    with pytest.raises(UserError, match=r"called fc\.wieght; did you mean 'fc\.weight'\?"):
        freeze(build(), ["fc.wieght"])
    with pytest.raises(UserError, match="leaves nothing to train"):
        freeze(build(), ["*"])


@pytest.mark.parametrize("name", FAMILIES)
def test_pretrained_with_another_head(name, tmp_path):
    """Protects fine-tuning: all but the head comes from the file, the head stays as initialised, and that is said."""
    earlier = build(name, num_classes=7, seed=1)
    save_weights(tmp_path / "a.ckpt", earlier, {"model": {"name": name}})
    network = build(name, seed=2)
    own = {p.name: p.asnumpy().copy() for p in network.get_parameters()}
    loaded, classes = load_pretrained(network, tmp_path / "a.ckpt", FOUR)
    assert classes == FOUR
    head = [f"{network.head_name}.weight", f"{network.head_name}.bias"]
    assert loaded.new == loaded.left_over == head and {*loaded.loaded} == {*own} - {*head}
    assert loaded.line == f"began with the weights of {tmp_path / 'a.ckpt'}, with a new head: 4 classes here, 7 there"
    theirs = {p.name: p.asnumpy() for p in earlier.get_parameters()}
    assert [p.name for p in network.get_parameters()] == list(own)
    for parameter in network.get_parameters():
        source = own if parameter.name.startswith(f"{network.head_name}.") else theirs
        np.testing.assert_array_equal(parameter.asnumpy(), source[parameter.name], err_msg=parameter.name)


def task_with(**finetune):
    """One that begins as a classifier of seven classes does."""
    return SimpleNamespace(
        config=SimpleNamespace(finetune=FinetuneConfig(**finetune)),
        load_pretrained=lambda network, path: load_pretrained(network, path, SEVEN)[0],
    )


def test_pretrained_is_strict_but_for_the_head(tmp_path):
    """Protects from weights of another model; a head of the same size is taken; a resumed run loads nothing here."""
    save_weights(tmp_path / "a.ckpt", build("acmix_swin_tiny", num_classes=7), {"model": {"name": "acmix_swin_tiny"}})
    path = str(tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="was written for acmix_swin_tiny"):
        load_pretrained(build(num_classes=7), path, SEVEN)
    with pytest.raises(UserError, match="was written for acmix_swin_tiny"):
        load_pretrained(build("acmix_pvt_tiny", num_classes=3), path, FOUR)
    network = build("acmix_swin_tiny", num_classes=7, seed=5)
    assert prepare_fine_tuning(network, task_with(pretrained=path), True) == ([], None)
    lines, loaded = prepare_fine_tuning(network, task_with(pretrained=path, freeze="embed.* layer1.*"), False)
    assert lines == [
        f"began with the weights of {path}",
        f"froze 22 of {len(build('acmix_swin_tiny').trainable_params())} parameters",
    ]
    assert not loaded.new and not loaded.left_over and len(loaded.loaded) == len([*network.get_parameters()])
    np.testing.assert_array_equal(
        network.head.weight.asnumpy(), build("acmix_swin_tiny", num_classes=7).head.weight.asnumpy()
    )


def test_pretrained_knows_its_classes_by_name(tmp_path):
    """Protects from swapped labels: the same classes keep the file's numbers, others get a new head."""
    earlier = build(num_classes=4, seed=1)
    kept = Classes(["b", "a", "d", "c"], ["bee", "ant", "dog", "cat"])
    save_weights(tmp_path / "a.ckpt", earlier, {"model": {"name": "acmix_resnet26"}, **kept.to_record()})
    network = build(num_classes=4, seed=2)
    own = network.fc.weight.asnumpy().copy()
    loaded, classes = load_pretrained(network, tmp_path / "a.ckpt", Classes(["w", "x", "y", "z"], ["W", "X", "Y", "Z"]))
    assert "with a new head: 4 classes here, others there (class 'w'" in loaded.line and classes.folders == [
        "w",
        "x",
        "y",
        "z",
    ]
    np.testing.assert_array_equal(network.fc.weight.asnumpy(), own)
    np.testing.assert_array_equal(network.stem.conv.weight.asnumpy(), earlier.stem.conv.weight.asnumpy())
    for folders in (["a", "b", "c", "d"], ["Ameise", "Biene", "Hund", "Katze"]):
        loaded, classes = load_pretrained(network, tmp_path / "a.ckpt", Classes(folders, ["ant", "bee", "cat", "dog"]))
        assert "head" not in loaded.line and classes == kept
        np.testing.assert_array_equal(network.fc.weight.asnumpy(), earlier.fc.weight.asnumpy())
