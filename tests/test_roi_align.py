# SPDX-License-Identifier: Apache-2.0
"""Regions of maps and of masks beside the reference implementation, forward and gradient."""

import numpy as np
import onnxruntime
import pytest
from compiled import OPERATORS, assert_near, gradient, run
from golden import rule
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mindspore import Tensor, nn
from mindspore.onnx import export

from src.boxes import masks, roi_align
from src.boxes.coding import clipped, decoded
from src.boxes.masks import mask_shares, mask_targets
from src.boxes.paste import pasted
from src.boxes.roi_align import RoiAlign, roi_levels
from src.boxes.roi_weights import bin_weights, sample_places
from src.boxes.suppression import Suppression, best_of_classes, taken


def by_image(rois, values=None):
    """Boxes (N, 5) as (2, N, 4), each in both images; values (N, ...) as (2 * N, ...), 0 where the image is another."""
    if values is None:
        return np.stack([rois[:, 1:]] * 2)
    is_here = rois[:, 0] == np.arange(2)[:, None]
    return (is_here.reshape(2, -1, *[1] * (values.ndim - 1)) * values).reshape(-1, *values.shape[1:])


@pytest.mark.parametrize("at_a_time", [1 << 26, 200_000])
@pytest.mark.parametrize("samples", [0, 2])
def test_regions_of_one_map(samples, at_a_time, monkeypatch):
    """Protects adaptive and fixed samples, boxes beyond the image and without area, in one turn and in several."""
    monkeypatch.setattr(roi_align, "_AT_A_TIME", at_a_time)
    rois, expected = OPERATORS["roi.rois"], OPERATORS[f"roi.y{samples}"]
    align = RoiAlign(7, [4], samples)
    pool = lambda x, boxes: align((x,), boxes)
    x = rule.make_input((2, 3, 20, 24), 0, "op_map")
    got = run(pool, x, by_image(rois)).reshape(2, *expected.shape)
    assert_near(got[rois[:, 0].astype(int), np.arange(len(rois))], expected, 4e-6)
    cotangent = by_image(rois, rule.make_input(expected.shape, 0, "op_roi_cotangent"))
    assert_near(gradient(pool, x, by_image(rois), cotangent), OPERATORS[f"roi.g{samples}"], 2e-6)


def test_each_box_has_its_level():
    """Protects the level rule, at its limits too, and the pooling of boxes of all levels in one call."""
    rois, levels = OPERATORS["levels.rois"], OPERATORS["levels.level"]
    rule_of_four = lambda boxes: roi_levels(boxes, 4)
    assert run(rule_of_four, rois[:, 1:]).tolist() == levels.tolist() and set(levels) == {0, 1, 2, 3}
    sides = np.array([0, 111.99, 112, 224, 448, 2000], np.float32)
    assert run(rule_of_four, np.stack([0 * sides, 0 * sides, sides, sides], 1)).tolist() == [0, 0, 1, 2, 3, 3]

    # Places of samples far from 0 are float32: the reference is off float64 by 1.2e-5 of the largest itself.
    maps = [rule.make_input((2, 2, 512 // s, 640 // s), 0, f"op_level{i}") for i, s in enumerate((4, 8, 16, 32))]
    align = RoiAlign(7, (4, 8, 16, 32))
    pool = lambda a, b, c, d, boxes: align((a, b, c, d), boxes)
    got = run(pool, *maps, by_image(rois)).reshape(2, -1, 2, 7, 7)
    assert_near(got[rois[:, 0].astype(int), np.arange(len(rois))], OPERATORS["levels.y"], 2.5e-5)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_every_box_has_room(seed):
    """Protects the count of pixels gathered for a box: a constant map is constant in every box of the image."""
    rng = np.random.default_rng(seed)
    side = np.exp(rng.uniform(np.log(2), np.log(700), 20))
    ratio = np.exp(rng.uniform(-4, 4, 20))
    wh = np.stack([side * ratio, side / ratio], 1)
    low = rng.uniform(-0.2, 1, (20, 2)) * [640, 256] - wh * rng.uniform(0, 0.5, (20, 1))
    boxes = np.concatenate([low, low + wh], 1).clip(0, [640, 256] * 2).astype(np.float32)[None]
    has_area = (boxes[0, :, 2:] - boxes[0, :, :2]).min(1) > 0
    pooled = run(ALIGN, *[np.ones((1, 1, 256 // s, 640 // s), np.float32) for s in (4, 8, 16, 32)], boxes)
    assert np.abs(pooled[has_area] - 1).max(initial=0) < 1e-4 and (pooled[~has_area] == 0).all()


class Pyramid(nn.Cell):
    """ROIAlign of four maps of an image of 256 x 640."""

    def __init__(self):
        super().__init__()
        self.align = RoiAlign(7, (4, 8, 16, 32))

    def construct(self, a, b, c, d, boxes):
        return self.align((a, b, c, d), boxes)


ALIGN = Pyramid()


def test_weights_of_long_and_short_sides():
    """Protects the closed form beside samples one by one: beyond both ends, of many samples, and of none."""
    rng = np.random.default_rng(0)
    start, length = rng.uniform(-30, 90, (150, 1)), rng.uniform(-3, 110, (150, 1))
    length[:50] /= 50
    start, length = start.astype(np.float32), length.astype(np.float32)
    weigh = lambda start, length, top, size: bin_weights(sample_places(start, length, 7, 0), top, 80, size)
    got = run(weigh, start, length, np.zeros((150, 1), np.float32), np.full((150, 1), 80, np.float32))
    expected = [one_by_one(float(a), float(b), 7, 80) for a, b in zip(start[:, 0], length[:, 0])]
    assert_near(got, np.stack(expected), 1e-5)


def one_by_one(start, length, bins, size):
    count = max(int(np.ceil(length / bins)), 0)
    weights = np.zeros((bins, size))
    for number in range(bins * count):
        place = start + length / bins / count * (number + 0.5)
        if -1 <= place <= size:
            place = np.clip(place, 0, size - 1)
            weights[number // count] += np.maximum(0, 1 - np.abs(np.arange(size) - place)) / count
    return weights


@pytest.mark.parametrize("at_a_time", [1 << 26, 10_000])
def test_mask_targets(at_a_time, monkeypatch):
    """Protects the targets of the mask head, and which mask of which image a box takes, in one turn and in several."""
    monkeypatch.setattr(masks, "_AT_A_TIME", at_a_time)
    bitmaps, numbers = OPERATORS["mask.bitmaps"], OPERATORS["mask.index"].astype(np.int32)
    inputs = (
        np.stack([bitmaps, bitmaps[::-1]]),
        np.stack([OPERATORS["mask.boxes"]] * 2),
        np.stack([numbers, 2 - numbers]),
    )
    shares, targets = run(mask_shares, *inputs), run(mask_targets, *inputs)
    for image in range(2):
        assert_near(shares[image], OPERATORS["mask.value"], 5e-6)
        assert (targets[image] == OPERATORS["mask.target"]).all()


def test_pasting():
    """Protects masks in the image, cut at its edges, beside bilinear samples of the reference."""
    logits = rule.make_input((5, 1, 28, 28), 0, "op_paste")[:, 0]
    for logit, box, expected in zip(logits, OPERATORS["paste.boxes"], OPERATORS["paste.y"]):
        assert_near(pasted(1 / (1 + np.exp(-logit)), box, 40, 50), expected, 1e-5)


@given(*[st.floats(-60, 110)] * 4)
@example(0.0, 1.5, 1.0, 1.5)  # no height, and just where the centres of pixels are
def test_pasting_anywhere(x1, y1, x2, y2):
    """Protects from boxes beyond the image and without area: a mask of ones is never more than 1, and 0 outside."""
    x1, x2, y1, y2 = min(x1, x2), max(x1, x2), min(y1, y2), max(y1, y2)
    image = pasted(np.ones((4, 4), np.float32), np.array([x1, y1, x2, y2]), 40, 50)
    # Half a row of the mask on both sides of its edges it may be anything between.
    rows, columns = np.abs(np.arange(40) + 0.5 - (y1 + y2) / 2), np.abs(np.arange(50) + 0.5 - (x1 + x2) / 2)
    is_near = np.outer(rows < (y2 - y1) * 5 / 8, columns < (x2 - x1) * 5 / 8)
    is_within = np.outer(rows < (y2 - y1) * 3 / 8, columns < (x2 - x1) * 3 / 8)
    assert image.shape == (40, 50) and image.max() < 1 + 1e-5
    assert (image[~is_near] < 1e-5).all() and (image[is_within] > 1 - 1e-5).all()


class Detector(nn.Cell):
    """What a detector does after its maps: choose, decode, suppress, pool."""

    def __init__(self):
        super().__init__()
        self.suppression, self.align = Suppression(0.5, 10, 5), RoiAlign(7, (4, 8))

    def construct(self, fine, coarse, boxes, deltas, scores, size):
        scores, numbers, classes = best_of_classes(scores, 40, 0.3)
        candidates = clipped(decoded(taken(boxes, numbers), taken(deltas, numbers)), size)
        scores, places = self.suppression(candidates, scores, classes)
        chosen = taken(candidates, places)
        return scores, chosen, taken(classes, places), self.align((fine, coarse), chosen)


def test_onnx_gives_the_same_detections(tmp_path):
    """Protects export: MindSpore's exporter knows all that evaluation needs, and onnxruntime answers as MindSpore."""
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 80, (2, 30, 2))
    boxes = np.concatenate([low, low + rng.uniform(10, 60, (2, 30, 2))], 2)
    fine, coarse = rng.standard_normal((2, 3, 32, 40)), rng.standard_normal((2, 3, 16, 20))
    inputs = [fine, coarse, boxes, 0.2 * rng.standard_normal((2, 30, 4)), rng.random((2, 30, 5))]
    inputs = [np.asarray(x, np.float32) for x in [*inputs, [[128, 160], [100, 160]]]]
    cell, path = Detector().set_train(False), str(tmp_path / "detector.onnx")
    expected = run(cell, *inputs)
    export(cell, *[Tensor(x) for x in inputs], file_name=path)
    session = onnxruntime.InferenceSession(path)
    got = session.run(None, dict(zip([x.name for x in session.get_inputs()], inputs)))
    for one, other in zip(got, expected):
        assert_near(one, other, 1e-5)
    assert (expected[0] > 0.3).sum() > 10
