# SPDX-License-Identifier: Apache-2.0
"""Folding keeps the logits of every model and variant, and leaves fewer operators."""

import itertools

import mindspore as ms
import numpy as np
import onnxruntime
import pytest
from mindspore import Tensor, nn

from src.deploy.folding import attention
from src.deploy.folding.fold import fold
from src.deploy.folding.mix import joined
from src.deploy.folding.norms import Affine, folded
from src.deploy.onnx.export import onnx_model
from src.deploy.onnx.graph import attributes_of
from src.deploy.options import Options
from src.deploy.serving import Serving
from src.models import create_model, list_models
from src.ops.acmix import ACmix

# Sizes at which blocks are cut off at borders, strides are uneven, windows roll and grids are reduced.
RESNET = {"image_size": 18, "options": {"stem": "small", "width": 16, "depths": [1, 1, 1, 1]}}
SAN = {"image_size": 20, "options": {"stem": "small", "width": 32, "depths": [1, 1, 1, 1, 1]}}
SWIN = {"image_size": 26, "options": {"patch": 2, "width": 16, "heads": 2, "depths": [2, 1, 1, 1], "window": 4}}
PVT = {"image_size": 32, "options": {"width": 8, "depths": [1, 1, 1, 1]}}
FAMILIES = {"resnet": RESNET, "sasa_resnet": RESNET, "san": SAN, "swin": SWIN, "pvt": PVT}
FAMILIES |= {f"acmix_{name}": small for name, small in FAMILIES.items() if name != "sasa_resnet"}
ACMIX = [name for name in FAMILIES if name.startswith("acmix")]
BATCH = 2


def family(model):
    """acmix_swin_tiny -> acmix_swin: the models of a family differ in their depths, which these tests set."""
    return model.rstrip("0123456789").removesuffix("_tiny").removesuffix("_small")


@pytest.fixture(autouse=True, scope="module")
def eager():
    """The original runs operator by operator: it takes longer to compile than to run."""
    mode = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)
    yield
    ms.set_context(mode=mode)


def randomise(network):
    """Weights, statistics, biases, alpha and beta that leave nothing at a value which folding could overlook."""
    rng = np.random.default_rng(0)
    for parameter in network.get_parameters():
        name, shape = parameter.name, parameter.shape
        values = rng.standard_normal(shape) * 0.3
        if name.endswith("shift.weight"):
            values = parameter.asnumpy() + values / 3 * parameter.requires_grad
        elif name.endswith(("gamma", "moving_variance")) or shape == (1,):
            values = rng.uniform(0.3, 1.5, shape)  # of shape (1,) are alpha and beta
        elif len(shape) > 1 and not name.endswith("position"):
            values *= 4 / np.sqrt(np.prod(shape[1:]))
        parameter.set_data(Tensor(values.astype(parameter.asnumpy().dtype)))
    return network.set_train(False)


def build(name, **options):
    small = FAMILIES[name]
    model = next(model for model in list_models() if family(model) == name)
    options = {**small["options"], **options}
    return randomise(create_model(model, 10, small["image_size"], drop_path_rate=0.1, **options))


def images(name):
    side = FAMILIES[name]["image_size"]
    return np.random.default_rng(1).standard_normal((BATCH, 3, side, side)).astype(np.float32)


def assert_equal(computed, logits):
    # Else the logits would prove little: those of a network that ignores its image are equal too.
    assert np.ptp(logits, axis=0).max() > 0.02 * np.abs(logits).max()
    assert np.abs(computed - logits).max() < 1e-4 * np.abs(logits).max()


def exported(network, name):
    """The model, whose padding is written out: some tools cannot read the rules, long deprecated, that stand for it."""
    model = onnx_model(lambda: Serving(network), images(name), Options(BATCH), ["logits"])
    attributes = [attributes_of(node) for node in model.graph.node if node.op_type in ("Conv", "MaxPool")]
    assert attributes and all("pads" in named for named in attributes)
    assert not any("auto_pad" in attributes_of(node) for node in model.graph.node)
    return model


def test_every_model_is_of_a_tested_family():
    """A new family has to be folded too."""
    assert {family(model) for model in list_models()} == set(FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_folded_network(name, monkeypatch):
    """Compiled, exported and run elsewhere: equal logits; no norm before ReLU is left but SAN's; the rest unharmed.

    Of the sliding windows the first are cut into portions, as those of large maps are, the last are not.
    """
    monkeypatch.setattr(attention, "LOGITS", 100_000)
    network = build(name)
    logits = network(Tensor(images(name))).asnumpy()
    model = exported(fold(network), name)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    assert_equal(session.run(None, {"image": images(name)})[0], logits)
    kinds = [node.op_type for node in model.graph.node]
    # Before the first convolution of a block, of its attention, and of the next level there is none to fold into.
    assert kinds.count("BatchNormalization") == (3 * 5 if "san" in name else 0)
    if name in ("acmix_resnet", "acmix_swin"):  # two suffice: exporting is what takes time here
        assert len(kinds) < len(exported(network, name).graph.node)
    np.testing.assert_array_equal(network(Tensor(images(name))).asnumpy(), logits)


@pytest.mark.parametrize("name", ACMIX)
@pytest.mark.parametrize(
    ("paths", "shift"),
    [("attention", "learnable"), *itertools.product(["both", "convolution"], ["fixed", "slice"])],
)
def test_variants(name, paths, shift, monkeypatch):
    """Every path and every kind of shift; a learnable one is folded as one that is fixed, and is in the test above.

    Each block of a sliding window is a portion of its own.
    """
    monkeypatch.setattr(attention, "LOGITS", 1)
    network = build(name, paths=paths, shift=shift)
    logits = network(Tensor(images(name))).asnumpy()
    assert_equal(fold(network)(Tensor(images(name))).asnumpy(), logits)


@pytest.mark.parametrize("alpha", [0.0, 1e-6])
def test_attention_that_training_switched_off(alpha):
    """No weight is divided by alpha."""
    cell = randomise(ACmix(8, 16, stride=2, dilation=2, kernel_att=3, kernel_conv=5))
    cell.alpha.set_data(Tensor(np.array([alpha], np.float32)))
    x = Tensor(np.random.default_rng(1).standard_normal((BATCH, 8, 5, 9)).astype(np.float32))
    expected = cell(x).asnumpy()
    assert np.abs(fold(cell)(x).asnumpy() - expected).max() < 1e-5 * np.abs(expected).max()


def test_large_logits_of_attention():
    """What a query does not see gets no weight, however well it would fit."""
    cell = randomise(ACmix(8, 16, kernel_att=3))
    cell.qkv.weight.set_data(cell.qkv.weight * 3)
    x = Tensor(np.random.default_rng(1).standard_normal((BATCH, 8, 14, 14)).astype(np.float32))
    expected = cell(x).asnumpy()
    assert np.abs(fold(cell)(x).asnumpy() - expected).max() < 1e-4 * np.abs(expected).max()


def test_joined_groups():
    """Slots share a group only if that fills the blocks of the fast convolutions, and stay apart in it."""
    kernel = np.random.default_rng(0).standard_normal((32, 12, 3, 3))
    wide, groups = joined(kernel, 8, 4)
    assert wide.shape == (32, 48, 3, 3) and groups == 2
    np.testing.assert_array_equal(wide.reshape(32, 4, 12, 3, 3).sum(1), kernel)
    assert np.count_nonzero(wide) == kernel.size
    same, groups = joined(kernel[:, :9], 8, 4)
    assert same.shape == (32, 9, 3, 3) and groups == 8


def test_what_cannot_take_in_a_norm():
    """A kind of Cell without a rule is a mistake in `NORM_AFTER`, not a wrong network."""
    with pytest.raises(TypeError, match="ReLU cannot take in"):
        folded(nn.ReLU(), Affine(2.0, 0.0))
