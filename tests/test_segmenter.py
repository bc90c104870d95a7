# SPDX-License-Identifier: Apache-2.0
"""Segmentation networks beside what mmsegmentation computes with the same rule-made weights."""

import json

import mindspore as ms
import numpy as np
import pytest
from golden import rule
from golden_network import GOLDEN, fill
from mindspore import Tensor, nn, ops

from src.models.complexity import count_parameters
from src.models.published import to_published
from src.models.registry import backbone_of
from src.models.segmenter import create_segmenter, published_rules
from src.training.pixel_losses import PixelCrossEntropy, SegmentationLoss

# Head, backbone, image size: of the positions of PVT; at 512 every second block of Swin is rolled, as in the reference.
REFERENCES = [("upernet", "swin_tiny", 512), ("fpn", "pvt_tiny", 224), ("fpn", "resnet50", 224)]


@pytest.fixture(autouse=True)
def graph_mode():
    ms.set_context(mode=ms.GRAPH_MODE)


@pytest.fixture(scope="module", params=REFERENCES, ids=[f"{a}_{b}" for a, b, _ in REFERENCES])
def reference(request):
    """Golden figures and arrays, the network of them, and its rules."""
    head, backbone, image_size = request.param
    name = f"{head}_{backbone}"
    golden = json.loads((GOLDEN / "downstream" / f"{name}.json").read_text())
    arrays = np.load(GOLDEN / "downstream" / f"{name}.npz")
    tensors = {tensor: rule.make(tensor, shape, golden["seed"]) for tensor, shape in golden["tensors"]}
    network = create_segmenter(head, backbone, image_size=image_size, dropout=0.0)
    rules = published_rules(head, type(network.backbone))
    fill(network, tensors, rules)
    return golden, arrays, network, rules


def image_of(golden):
    return Tensor(rule.make_input(golden["input"]["shape"], golden["seed"]))


def test_logits_are_those_of_the_reference(reference):
    """Parameter count, and logits at the image's size, which come of all maps."""
    golden, arrays, network, _ = reference
    assert count_parameters(network) == golden["params"]
    logits = network.set_train(False)(image_of(golden)).asnumpy()
    assert logits.shape == (2, 150, 128, 160)
    expected = arrays["logits_up"]
    assert np.abs(logits[:, ::10, 1::7, 2::7] - expected).max() < 1e-4 * np.abs(expected).max()


class LossAndGradients(nn.Cell):
    def __init__(self, network, loss):
        super().__init__(auto_prefix=False)
        self.network, self.loss = network, loss
        self.weights = ms.ParameterTuple(network.trainable_params())
        self.gradient = ops.value_and_grad(self.loss_of, None, self.weights)

    def loss_of(self, image, label):
        return self.loss(self.network(image), label)

    def construct(self, image, label):
        return self.gradient(image, label)


def test_loss_and_gradients_are_those_of_the_reference(reference):
    """Training: batch statistics, auxiliary head, loss over all pixels; gradient norms of every published tensor."""
    golden, arrays, network, rules = reference
    step = LossAndGradients(network.set_train(), SegmentationLoss(PixelCrossEntropy()))
    loss, gradients = step(image_of(golden), Tensor(arrays["label"].astype(np.int32)))
    assert abs(float(loss.asnumpy()) / golden["losses"]["total"] - 1) < 1e-5
    by_name = {p.name: g.asnumpy() for p, g in zip(network.trainable_params(), gradients, strict=True)}
    norms, largest = golden["grad_norms"], max(golden["grad_norms"].values())
    ours = {name: np.linalg.norm(value) for name, value in to_published(by_name, rules).items()}
    assert ours.keys() == norms.keys()
    worst = max(abs(ours[name] - norms[name]) for name in norms)
    assert worst < 1e-3 * largest


def test_published_tensors_come_back(reference):
    """Both ways through the names of mmsegmentation: what was cut, stacked or in another order is as it was."""
    golden, _, network, rules = reference
    tensors = to_published({p.name: p.asnumpy() for p in network.get_parameters()}, rules)
    assert tensors.keys() == {name for name, _ in golden["tensors"]}
    for name, shape in golden["tensors"]:
        if not name.endswith(("running_mean", "running_var")):  # which training may have moved
            np.testing.assert_array_equal(tensors[name], rule.make(name, shape, golden["seed"]))


@pytest.mark.parametrize(
    ("head", "backbone", "options"),
    [
        ("fpn", "acmix_san10", {"width": 32, "depths": [1, 1, 1, 1, 1]}),
        ("upernet", "acmix_pvt_tiny", {"width": 8, "depths": [1, 1, 1, 1]}),
    ],
)
def test_any_size_that_the_backbone_takes(head, backbone, options):
    """Maps whose sides are no halves of each other; logits of every pixel, and in training those of each head."""
    network = create_segmenter(head, backbone, 7, (64, 96), **options)
    image = Tensor(np.random.default_rng(0).standard_normal((2, 3, 70, 99)).astype(np.float32))
    assert network.set_train(False)(image).shape == (2, 7, 70, 99)
    logits = network.set_train()(image)
    assert [part.shape[:2] for part in logits] == [(2, 7)] * (2 if head == "upernet" else 1)


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match="no segmentation head 'unet'; there are fpn, upernet"):
        create_segmenter("unet", "resnet26")
    with pytest.raises(ValueError, match="dropout"):
        create_segmenter("fpn", "resnet26", dropout=1.0)
    with pytest.raises(ValueError, match="OpenMMLab has no SAN"):
        published_rules("fpn", backbone_of("san10"))


class LossGradient(nn.Cell):
    def __init__(self, loss):
        super().__init__()
        self.value_and_gradient = ops.value_and_grad(loss, 0)

    def construct(self, logits, label):
        return self.value_and_gradient(logits, label)


@pytest.mark.parametrize("average", ["all", "valid"])
def test_pixels_without_a_class_count_as_the_average_says(average):
    """By hand, and with no class anywhere: no loss, no gradient, no NaN."""
    rng = np.random.default_rng(0)
    logits, label = rng.standard_normal((2, 5, 4, 3)).astype(np.float32), rng.integers(0, 5, (2, 4, 3))
    label[0, :2] = 255
    valid = label != 255
    log_probability = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    chosen = np.take_along_axis(log_probability, np.where(valid, label, 0)[:, None], 1)[:, 0]
    expected = -(chosen * valid).sum() / (label.size if average == "all" else valid.sum())
    step = LossGradient(PixelCrossEntropy(average=average))
    loss, gradient = step(Tensor(logits), Tensor(label.astype(np.int32)))
    assert abs(float(loss.asnumpy()) - expected) < 1e-5
    assert not gradient.asnumpy().transpose(0, 2, 3, 1)[~valid].any()
    loss, gradient = step(Tensor(logits), Tensor(np.full_like(label, 255).astype(np.int32)))
    assert float(loss.asnumpy()) == 0 and not gradient.asnumpy().any()


def test_heads_are_as_wide_and_begin_as_asked():
    """Protects learning without pretraining: below classifiers that begin with tiny weights nothing is learned."""
    options = {"width": 8, "depths": [1, 1, 1, 1]}
    network = create_segmenter("upernet", "resnet26", 7, 64, head_channels=32, init_std=0.5, **options)
    for classifier, channels in ((network.head.classifier, 32), (network.auxiliary.classifier, 16)):
        assert classifier.linear.weight.shape == (7, channels, 1, 1)
        assert 0.3 < classifier.linear.weight.asnumpy().std() < 0.7
    network = create_segmenter("fpn", "resnet26", 7, 64, head_channels=32, **options)
    assert network.head.pyramid.lateral[0].weight.shape[0] == 32
    assert 0.005 < network.head.classifier.linear.weight.asnumpy().std() < 0.015
