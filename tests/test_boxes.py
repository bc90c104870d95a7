# SPDX-License-Identifier: Apache-2.0
"""Geometry and losses of boxes beside what the reference implementation makes of them, forward and gradient."""

import contextlib

import mindspore as ms
import numpy as np
import pytest
from compiled import CASES, OPERATORS, assert_near, gradient, run
from golden import rule
from hypothesis import given
from hypothesis import strategies as st
from mindspore import Tensor, ops

from src.boxes.anchors import octave_scales, pyramid_anchors, usable_anchors
from src.boxes.coding import clipped, decoded, encoded
from src.boxes.losses import FocalLoss, giou_loss, smooth_l1_loss
from src.boxes.matching import Matcher
from src.boxes.overlaps import pairwise_iou
from src.boxes.sampling import Sampler
from src.boxes.suppression import EMPTY, Suppression, best_of_classes, taken
from src.ops.kernels import fused_form

PYRAMIDS = {
    "retina": {"strides": [8, 16, 32, 64, 128], "scales": octave_scales()},
    "rpn": {"strides": [4, 8, 16, 32, 64], "scales": [8]},
}
ONE = np.float32(1)


@pytest.mark.parametrize("name", PYRAMIDS)
def test_anchors(name):
    """Protects the anchors of RetinaNet and of the RPN, and their order, on maps that are not square."""
    sizes = CASES["anchors"][name]["sizes"]
    anchors = np.concatenate(pyramid_anchors(sizes=sizes, ratios=[0.5, 1, 2], **PYRAMIDS[name]))
    assert anchors.dtype == np.float32
    assert_near(anchors, OPERATORS[f"anchors.{name}.all"], 3e-7)


def test_anchors_of_the_padding_are_not_judged():
    """Protects which anchors are trained: those whose cell lies in the picture, padded to 32; or wholly inside."""
    (anchors,) = pyramid_anchors([8], [(12, 12)], [4], [1])
    size = np.array([[64, 33], [96, 96]], np.float32)
    by_cell = run(usable_anchors, anchors, size).reshape(2, 12, 12)
    assert (by_cell[0] == np.outer(np.arange(12) < 8, np.arange(12) < 8)).all() and by_cell[1].all()
    wholly = lambda anchors, size: usable_anchors(anchors, size, 0)
    nearly = lambda anchors, size: usable_anchors(anchors, size, 16)
    inside = [run(wholly, anchors, size), run(nearly, anchors, size)]
    fits = [(anchors[:, :2] >= -b).all(1) & (anchors[:, 2:] < size[:, None, ::-1] + b).all(2) for b in (0, 16)]
    assert (inside[0] == fits[0]).all() and (inside[1] == fits[1]).all()
    assert 0 < inside[0].sum() < inside[1].sum()


@pytest.mark.parametrize("case", CASES["code"]["stds"])
def test_coding(case):
    """Protects deltas and boxes of them: scaled, cut at the most that a box may grow, and cut to the image."""
    stds, priors = tuple(CASES["code"]["stds"][case]), OPERATORS["code.priors"]
    encode = lambda boxes, targets: encoded(boxes, targets, stds=stds)
    free = lambda deltas, boxes: decoded(boxes, deltas, stds=stds)
    cut = lambda deltas, boxes, size: clipped(decoded(boxes, deltas, stds=stds)[None], size)[0]
    assert_near(run(encode, priors, OPERATORS["code.targets"]), OPERATORS[f"code.enc{case}"])
    deltas = (3 * rule.make_input((24, 4), 0, "op_deltas") / np.array(stds, np.float32)).astype(np.float32)
    size = np.array([[128, 160]], np.float32)
    assert_near(run(free, deltas, priors), OPERATORS[f"code.free{case}"], 3e-6)  # exp of 4
    assert_near(run(cut, deltas, priors, size), OPERATORS[f"code.dec{case}"])
    cotangent = rule.make_input((24, 4), 0, "op_code_cotangent")
    assert_near(gradient(cut, deltas, priors, size, cotangent), OPERATORS[f"code.grad{case}"])


def match(case, boxes, truth, labels, **options):
    rules = [CASES["assign"]["cases"][case][key] for key in ("pos", "neg", "min_pos", "low_quality")]
    return run(Matcher(*rules, **options), boxes[None], truth, np.array(labels, np.int32))


@pytest.mark.parametrize("case", CASES["assign"]["cases"])
def test_matching(case):
    """Protects the rules of every recipe, with room not used beside the boxes, and an image without boxes beside it."""
    truth = np.zeros((2, 9, 4), np.float32)
    truth[0, 1:7] = OPERATORS["assign.gt"]
    labels = [[-2, 3, 0, 1, 2, 79, 5, -2, -2], [-2] * 9]
    matched = match(case, OPERATORS["assign.priors"], truth, labels)
    expected = OPERATORS[f"assign.{case}"]
    assert matched.dtype == np.int32
    assert (matched[0] == expected + (expected > 0)).all() and (expected > 0).any() and (matched[1] == 0).all()


@pytest.mark.parametrize("case", CASES["assign"]["tie_cases"])
def test_ties_of_matching(case):
    """Protects that all boxes of the best IoU are positive, and that the later of two claims wins."""
    numbers, expected = {"four": 2, "better": 2, "override": 3}[case], OPERATORS[f"assign.tie.{case}"]
    truth, priors = OPERATORS["assign.tie.gt"][None, :numbers], OPERATORS["assign.tie.priors"][None, : len(expected)]
    matcher = Matcher(0.7, 0.3, 0.0)
    assert (run(matcher, priors, truth, np.zeros((1, numbers), np.int32)) == expected).all()


def test_regions_to_ignore_and_boxes_that_are_none():
    """Protects crowds: boxes within are ignored where that is asked for; and boxes not usable take no part."""
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [40, 0, 50, 10], [60, 0, 70, 10]], np.float32)
    truth = np.array([[[0, 0, 10, 10], [35, 0, 55, 20]]], np.float32)
    assert match("rcnn", boxes, truth, [[1, -1]]).tolist() == [[1, 1, 0, 0]]
    assert match("rcnn", boxes, truth, [[1, -1]], ignore_cover=0.5).tolist() == [[1, 1, -1, 0]]
    assert match("rcnn", boxes, truth, [[-2, -1]], ignore_cover=0.5).tolist() == [[0, 0, -1, 0]]
    usable = np.array([[False, True, True, True]])
    result = run(Matcher(0.9, 0.3, 0.3), boxes[None], truth, np.array([[1, -1]], np.int32), usable)
    assert result.tolist() == [[-1, 1, 0, 0]]  # the second is the best of those there are


@pytest.fixture(scope="module")
def sampler():
    ms.set_seed(3)
    ms.set_context(mode=ms.GRAPH_MODE)
    return Sampler(8, 0.25)


@given(st.lists(st.sampled_from([-1, -1, 0, 0, 0, 1, 5]), min_size=24, max_size=24))
def test_samples_are_as_many_as_asked_for(sampler, kinds):
    """Protects the counts: at most 2 positives, background for the rest, all where there are fewer; none twice."""
    matched = np.array([kinds, kinds[::-1]], np.int32)
    places, drawn = run(sampler, matched)
    for image in range(2):
        positives = min(2, (matched[image] > 0).sum())
        negatives = min(8 - positives, (matched[image] == 0).sum())
        expected = [positives, negatives, 8 - positives - negatives]
        assert [(drawn[image] > 0).sum(), (drawn[image] == 0).sum(), (drawn[image] < 0).sum()] == expected
        assert (drawn[image, :positives] > 0).all()
        chosen = places[image, drawn[image] >= 0]
        assert len(set(chosen)) == len(chosen) and (matched[image, chosen] == drawn[image, drawn[image] >= 0]).all()


def test_samples_are_uniform_and_can_be_resumed(sampler):
    """Protects against favourites: each candidate is drawn as often as the others, alone and in pairs."""
    matched = np.tile(np.array([1] * 6 + [0] * 30 + [-1] * 4, np.int32), (50, 1))
    together = np.zeros((40, 40))
    for _ in range(40):
        places, drawn = run(sampler, matched)
        chosen = np.zeros((50, 40))
        np.put_along_axis(chosen, places, (drawn >= 0).astype(float), 1)
        together += chosen.T @ chosen
    rate, trials = np.diag(together) / 2000, 2000
    for part, expected in ((rate[:6], 2 / 6), (rate[6:36], 6 / 30), (rate[36:], 0)):
        assert np.abs(part - expected).max() <= 4.5 * np.sqrt(expected * (1 - expected) / trials)
    pairs = together[6:36, 6:36][np.triu_indices(30, 1)] / trials
    expected = 6 * 5 / (30 * 29)
    assert np.abs(pairs - expected).max() <= 4.5 * np.sqrt(expected * (1 - expected) / trials)

    draws = int(sampler.draws.asnumpy())
    first, second = run(sampler, matched)[0], run(sampler, matched)[0]
    assert (first != second).any()
    sampler.draws.set_data(Tensor(draws, ms.int32))
    assert (run(sampler, matched)[0] == first).all()


@pytest.mark.parametrize("form", [contextlib.nullcontext, fused_form])
def test_suppression_of_the_reference(form):
    """Protects what is kept, by class and of all classes together, boxes in any order, in both forms."""
    boxes, scores, classes = (OPERATORS[f"nms.{key}"][None] for key in ("boxes", "scores", "classes"))
    for cell, inputs, keep in (
        (Suppression(0.5, 200, 8), (boxes, scores, classes.astype(np.int32)), OPERATORS["nms.keep"]),
        (Suppression(0.7, 200), (boxes, scores), OPERATORS["nms.keep_agnostic"]),
    ):
        with form():
            kept_scores, places = run(cell, *inputs)
        assert places[0, : len(keep)].tolist() == keep.tolist()
        assert (kept_scores[0, : len(keep)] == scores[0, keep]).all() and (kept_scores[0, len(keep) :] == EMPTY).all()


def test_detections_of_many_classes():
    """Protects the way from scores of all classes to the best detections."""
    scores = OPERATORS["multi.scores"][None, :, :-1].copy()
    boxes = OPERATORS["multi.boxes"][None]

    def detect(boxes, scores):
        scores, numbers, classes = best_of_classes(scores, 250, 0.3)
        candidates = taken(boxes.reshape(1, -1, 4), numbers * 5 + classes)
        scores, places = Suppression(0.5, 20, 5)(candidates, scores, classes)
        return scores, taken(candidates, places), taken(classes, places)

    kept_scores, kept, classes = run(detect, boxes, scores)
    assert (np.concatenate([kept[0], kept_scores[0, :, None]], 1) == OPERATORS["multi.dets"]).all()
    assert (classes[0] == OPERATORS["multi.labels"]).all()


@pytest.mark.parametrize(("boxes", "count"), [(3, 40), (30, 40), (200, 40), (200, 1)])
def test_the_best_pairs_of_box_and_class(boxes, count):
    """Of few boxes and of more than are wanted, where only the best of them are looked at; with ties, and with few."""
    scores = np.random.default_rng(0).integers(0, 300, (2, boxes, 6)).astype(np.float32) / 300

    def chosen(scores):
        return best_of_classes(scores, count, 0.25)

    best, numbers, classes = run(chosen, scores)
    for image in range(2):
        wanted = np.sort(scores[image].ravel())[::-1][: best.shape[1]]
        wanted[wanted <= 0.25] = EMPTY
        assert (best[image] == wanted).all()
        there = wanted > EMPTY
        pairs = set(zip(numbers[image][there], classes[image][there]))
        assert len(pairs) == there.sum()
        assert (scores[image, numbers[image], classes[image]][there] == wanted[there]).all()


@pytest.mark.parametrize("seed", range(3))
def test_classes_do_not_suppress_each_other(seed):
    """Protects 80 classes on a large image beside plain NMS class by class in float64; places without box stay so."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 900, (300, 2))
    boxes = np.concatenate([low, low + rng.uniform(200, 433, (300, 2))], 1).astype(np.float32)
    classes, scores = rng.integers(0, 80, 300).astype(np.int32), rng.random(300).astype(np.float32)
    classes[:150], scores[-20:], scores[:10] = rng.integers(78, 80, 150), EMPTY, 0.5
    kept_scores, places = run(Suppression(0.5, 300, 80), boxes[None], scores[None], classes[None])
    got = places[0, kept_scores[0] != EMPTY].tolist()
    assert got == plain_suppression(boxes.astype(np.float64), scores, classes)


def plain_suppression(boxes, scores, classes):
    kept = []
    for number in np.argsort(-scores, kind="stable"):
        if scores[number] == EMPTY:
            break
        rivals = boxes[[other for other in kept if classes[other] == classes[number]]]
        low, high = np.maximum(rivals[:, :2], boxes[number, :2]), np.minimum(rivals[:, 2:], boxes[number, 2:])
        shared = np.clip(high - low, 0, None).prod(1)
        areas = (rivals[:, 2:] - rivals[:, :2]).prod(1) + (boxes[number, 2:] - boxes[number, :2]).prod()
        if not (shared > 0.5 * (areas - shared)).any():
            kept.append(number)
    return kept


def weighted(loss, **options):
    summed = lambda a, b, weights: loss(a, b, weights, ops.ones(()), **options)
    return summed


@pytest.mark.parametrize("name", ["smooth", "l1"])
def test_distances(name):
    """Protects smooth L1 of the recipes' beta and L1, row by row, where both agree too."""
    a, b = (0.3 * rule.make_input((8, 4), 0, f"op_l1_{side}") for side in "ab")
    b[0] = a[0]
    loss = weighted(smooth_l1_loss, beta=1 / 9 if name == "smooth" else 0)
    expected = OPERATORS[f"{name}.loss"].sum(1)
    for row in range(8):
        assert_near(run(loss, a, b, np.eye(8, dtype=np.float32)[row]), expected[row])
    assert_near(gradient(loss, a, b, np.ones(8, np.float32), ONE), OPERATORS[f"{name}.grad"])


def test_giou():
    """Protects GIoU, apart boxes too, its gradient, and that weights and divisor are heeded."""
    a, b, expected = OPERATORS["giou.a"], OPERATORS["giou.b"], OPERATORS["giou.loss"]
    for row in range(16):
        assert_near(run(weighted(giou_loss), a, b, np.eye(16, dtype=np.float32)[row]), expected[row])
    assert_near(gradient(weighted(giou_loss), a, b, np.ones(16, np.float32), ONE), OPERATORS["giou.grad"])
    weights = np.arange(16, dtype=np.float32)
    assert_near(run(giou_loss, a, b, weights, 4 * ONE), (expected * weights).sum() / 4)


def test_focal_loss():
    """Protects the loss of every class, and the gradient, at a logit of exactly 0 too."""
    logits, labels = OPERATORS["focal.logits"], OPERATORS["focal.labels"].astype(np.int32)
    labels = np.where(labels == 5, -1, labels).astype(np.int32)
    for row in range(12):
        weights = 2 * np.eye(12, dtype=np.float32)[row]
        assert_near(run(FocalLoss(), logits, labels, weights, 2 * ONE), OPERATORS["focal.loss"][row].sum())
    got = gradient(FocalLoss(), logits, labels, np.ones(12, np.float32), ONE, ONE)
    assert (logits[0, 0], logits[1, 1]) == (0, 0)
    assert_near(got, OPERATORS["focal.grad"])


def test_focal_loss_of_extreme_logits():
    """Protects the first steps, where logits may be anything: finite, and right to float64."""
    logits = np.array([[-90, 90, -30, 30, 1e-4]], np.float32)
    got = gradient(FocalLoss(), logits, np.array([1], np.int32), np.ones(1, np.float32), ONE, ONE)
    z = logits[0].astype(np.float64) * [1, -1, 1, 1, 1]
    p, rate = 1 / (1 + np.exp(-z)), np.array([0.75, 0.25, 0.75, 0.75, 0.75])
    expected = rate * p**2 * (2 * (1 - p) * np.logaddexp(0, z) + p) * [1, -1, 1, 1, 1]
    np.testing.assert_allclose(got[0], expected, rtol=1e-5, atol=1e-12)


def test_iou_has_no_extra_pixel():
    """Protects from the older convention, in which this is 0.674."""
    got = run(pairwise_iou, np.array([[[0, 0, 10, 20]]], np.float32), np.array([[[1, 1, 12, 18]]], np.float32))
    assert_near(got, np.array([[[153 / 234]]], np.float32))
