# SPDX-License-Identifier: Apache-2.0
"""Detection networks beside what mmdetection computes with the same rule-made weights."""

import json

import mindspore as ms
import numpy as np
import pytest
from golden import rule
from golden_network import GOLDEN
from mindspore import Tensor, nn, ops

from src.models.complexity import count_parameters
from src.models.detector import create_detector, published_rules
from src.models.published import from_published, to_published
from src.training.detection_losses import RetinaLoss
from src.training.fine_tuning import freeze, keep_averages

REFERENCES = [("retinanet", "pvt_tiny", 224), ("retinanet", "resnet50", 224)]
ROOM = 6  # for boxes of the ground truth, of which there are 3 and 5


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
    network = create_detector(head, backbone, image_size=image_size)
    rules = published_rules(head, type(network.backbone))
    parameters = {parameter.name: parameter for parameter in network.get_parameters()}
    shapes = {name: parameter.shape for name, parameter in parameters.items()}
    for name, value in from_published(shapes, tensors_of(golden), rules).items():
        parameters[name].set_data(Tensor(value))
    return golden, arrays, network, rules


def tensors_of(golden):
    def tensor(name, shape):
        value = rule.make(name, shape, golden["seed"])
        return value * np.float32(golden["scaled"].get(name, 1)) + np.float32(golden["shifted"].get(name, 0))

    return {name: tensor(name, shape) for name, shape in golden["tensors"]}


def image_of(golden):
    return Tensor(rule.make_input(golden["input"]["shape"], golden["seed"]))


def truth_of(golden):
    """Size, boxes and labels of a batch."""
    images = golden["ground_truth"]["images"]
    boxes, labels = np.zeros((2, ROOM, 4), np.float32), np.full((2, ROOM), -2, np.int32)
    for row, image in enumerate(images):
        boxes[row, : len(image["boxes"])], labels[row, : len(image["labels"])] = image["boxes"], image["labels"]
    size = np.float32([golden["input"]["shape"][2:]] * 2)
    return Tensor(size), Tensor(boxes), Tensor(labels)


def test_detections_are_those_of_the_reference(reference):
    """Parameter count; boxes, scores and labels, paired by label and box, as neighbours differ by 1e-6."""
    golden, arrays, network, _ = reference
    assert count_parameters(network) == golden["params"]
    boxes, scores, labels = (part.asnumpy() for part in network.set_train(False)(image_of(golden)))
    for image in range(2):
        expected, their_labels = arrays[f"det_boxes{image}"], arrays[f"det_labels{image}"]
        distance = np.abs(boxes[image][:, None] - expected).max(2) + 1e6 * (labels[image][:, None] != their_labels)
        pairs = distance.argmin(1)
        assert sorted(pairs) == list(range(len(expected)))
        assert distance.min(1).max() < 1e-2
        assert np.abs(scores[image] - arrays[f"det_scores{image}"][pairs]).max() < 1e-4


class LossesAndGradients(nn.Cell):
    def __init__(self, network, loss):
        super().__init__(auto_prefix=False)
        self.network, self.loss = network, loss
        self.weights = ms.ParameterTuple(network.trainable_params())
        self.gradient = ops.value_and_grad(self.total, None, self.weights, has_aux=True)

    def total(self, image, *truth):
        losses = self.loss(self.network(image), *truth)
        total = 0
        for loss in losses:
            total = total + loss
        return total, losses

    def construct(self, image, *truth):
        return self.gradient(image, *truth)


def test_losses_and_gradients_are_those_of_the_reference(reference):
    """Every loss, and the gradient norm of every published tensor."""
    golden, _, network, rules = reference
    if golden["not_trained"]:  # as a ResNet is published
        freeze(network, ["backbone.stem.*", "backbone.layer1.*"])
        keep_averages(network)
    step = LossesAndGradients(network.set_train(), RetinaLoss())
    (total, losses), gradients = step(image_of(golden), *truth_of(golden))
    for loss, name in zip(losses, ("loss_cls", "loss_bbox"), strict=True):
        assert abs(float(loss.asnumpy()) / golden["losses"][name] - 1) < 1e-4
    assert abs(float(total.asnumpy()) / golden["losses"]["total"] - 1) < 1e-4
    by_name = {p.name: g.asnumpy() for p, g in zip(network.trainable_params(), gradients, strict=True)}
    norms, largest = golden["grad_norms"], max(golden["grad_norms"].values())
    ours = {name: np.linalg.norm(value) for name, value in to_published(by_name, rules).items()}
    assert ours.keys() == norms.keys()
    assert max(abs(ours[name] - norms[name]) for name in norms) < 1e-3 * largest
