# SPDX-License-Identifier: Apache-2.0
"""What golden figures of Mask R-CNN and Cascade R-CNN do not show: rows without use, chance, other sizes, precision."""

from itertools import pairwise

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from src.heads.used_norm import UsedBatchNorm2d
from src.models.detections import Selection
from src.models.detector import create_detector
from src.models.proposals import Proposals, ProposalSelection
from src.models.rcnn import SELECTION
from src.ops.draws import random_state
from src.training.detection_losses import LOSSES, Total
from src.training.precision import mixed_precision

SIZE = 72, 104  # no multiple of 32
FEW = Proposals(ProposalSelection(50, 0.7, 40))


@pytest.fixture(autouse=True)
def graph_mode():
    ms.set_context(mode=ms.GRAPH_MODE)


class Gradients(nn.Cell):
    """The sum of what comes out times a cotangent, and its gradients to the input and the weights."""

    def __init__(self, norm):
        super().__init__(auto_prefix=False)
        self.norm = norm
        self.gradient = ops.GradOperation(get_all=True, get_by_list=True, sens_param=True)
        self.weights = ms.ParameterTuple(norm.trainable_params())

    def construct(self, cotangent, *inputs):
        return self.norm(*inputs), self.gradient(self.norm, self.weights)(*inputs, cotangent)


def normed(norm, cotangent, *inputs):
    """What a norm gives, its gradients and running averages, as arrays; its weights are not 1 and 0."""
    random = np.random.default_rng(1)
    for weight in norm.trainable_params():
        weight.set_data(Tensor(random.uniform(0.5, 2, weight.shape).astype(np.float32)))
    out, ((of_x, *_), of_weights) = Gradients(norm.set_train())(*[Tensor(x) for x in (cotangent, *inputs)])
    return [x.asnumpy() for x in (out, of_x, *of_weights, norm.moving_mean, norm.moving_variance)]


@pytest.mark.parametrize("count", [6, 4])
def test_norm_looks_at_used_rows_only(count):
    """With all rows used it is `nn.BatchNorm2d`; else that of the used ones alone, whatever the others hold."""
    random = np.random.default_rng(0)
    x, cotangent = (random.standard_normal((6, 3, 5, 4)).astype(np.float32) for _ in range(2))
    used = np.float32([1, 0, 1, 1, 0, 1] if count == 4 else [1] * 6)
    rows = used > 0
    x[~rows] *= 100
    cotangent[~rows] = 0
    ours = normed(UsedBatchNorm2d(3), cotangent, x, used)
    theirs = normed(nn.BatchNorm2d(3), cotangent[rows], x[rows])
    for number, (got, expected) in enumerate(zip(ours, theirs, strict=True)):
        got = got[rows] if number < 2 else got
        assert np.abs(got - expected).max() < 1e-5 * max(1, np.abs(expected).max())
    assert np.abs(ours[1][~rows]).max(initial=0) < 1e-6


@pytest.fixture(scope="module")
def cascade():
    """A narrow one for images of 72 x 104, from the recipe but for the counts of regions."""
    ms.set_seed(3)
    network = create_detector("cascade_maskrcnn", "resnet26", 7, SIZE, head_channels=32, width=8)
    network.geometry = (FEW, *network.geometry[1:])
    for sampler in network.samplers:
        sampler.count, sampler.most = 32, 8
    return network


def images(count=2):
    return Tensor(np.random.default_rng(5).standard_normal((count, 3, *SIZE)).astype(np.float32))


class Step(nn.Cell):
    def __init__(self, network, losses):
        super().__init__(auto_prefix=False)
        self.network, self.losses = network, losses
        self.gradient = ops.value_and_grad(self.total, None, ms.ParameterTuple(network.trainable_params()))

    def total(self, image, *truth):
        total = 0
        for loss in self.losses(self.network(image), *truth):
            total = total + loss
        return total

    def construct(self, image, *truth):
        loss, gradients = self.gradient(image, *truth)
        largest = ()
        for gradient in gradients:
            largest += (ops.abs(gradient).max(),)
        return loss, ops.stack(largest)


def test_training_draws_and_takes_images_without_boxes(cascade):
    """Chance is the network's, under its own names; a batch without a box has a loss, and all gradients are finite."""
    names = [parameter.name for parameter in cascade.get_parameters()]
    losses = LOSSES["cascade_maskrcnn"](cascade)
    Total(losses)
    losses.propose = FEW
    assert [parameter.name for parameter in cascade.get_parameters()] == names
    draws = ["proposal_sampler.draws", *(f"samplers.{stage}.draws" for stage in range(3))]
    assert sorted(random_state(cascade)) == sorted(draws)
    step = Step(cascade.set_train(), losses)
    size = Tensor(np.float32([SIZE, [60, 90]]))
    boxes, labels = np.zeros((2, 5, 4), np.float32), np.full((2, 5), -2, np.int32)
    masks = np.zeros((2, 5, *SIZE), np.uint8)
    averages = [cascade.boxes[2].convolutions[0].bn.moving_mean.asnumpy().copy()]
    for with_boxes in (False, True):
        if with_boxes:
            boxes[1, :2], labels[1, :2] = [[10, 8, 60, 50], [5, 20, 30, 55]], [3, 6]
            masks[1, 0, 10:50, 10:60] = 1
            boxes[0, 0], labels[0, 0] = [0, 0, 104, 72], -1
        loss, largest = (x.asnumpy() for x in step(images(), size, *[Tensor(x) for x in (boxes, labels, masks)]))
        assert np.isfinite(loss) and loss > 0
        assert np.isfinite(largest).all()
        of_masks = [p.name.startswith("masks.") for p in cascade.trainable_params()]
        assert (largest[of_masks] > 0).any() == with_boxes
        averages.append(cascade.boxes[2].convolutions[0].bn.moving_mean.asnumpy().copy())
    assert all((before != after).any() for before, after in pairwise(averages))
    # Two numbers for each image and step.
    assert {int(counter.asnumpy()) for counter in random_state(cascade).values()} == {8}


def test_answers_in_half_precision_are_not_rounded(cascade):
    """Boxes are inside of their pictures, and in float32 where the weights are in 16 bits; empty places say so."""
    selection = Selection(threshold=0.0, of_level=SELECTION.of_level, count=20)
    cascade.selection, cascade.geometry[-1].suppression.count = selection, 20
    size = Tensor(np.float32([SIZE, [60, 90]]))
    plain = [x.asnumpy() for x in cascade.set_train(False)(images(), size)]
    boxes, scores, labels, masks = plain
    assert [x.shape for x in plain] == [(2, 20, 4), (2, 20), (2, 20), (2, 20, 28, 28)]
    assert (boxes >= 0).all() and (boxes[1] <= [90, 60, 90, 60]).all()
    assert (np.diff(scores) <= 0).all() and labels.min() >= 0 and labels.max() < 7
    assert (masks > 0).all() and (masks < 1).all()
    half = [x.asnumpy() for x in mixed_precision(cascade, "O2")(images(), size)]
    inner = half[0][(half[0] > 1) & (half[0] < 60)]
    assert len(inner) > 20
    assert np.mean(inner != inner.astype(np.float16)) > 0.9
    assert np.abs(half[1] - scores).max() < 1e-2
