# SPDX-License-Identifier: Apache-2.0
"""Images with boxes and masks on their way to a detector: what belongs to an image stays together."""

import dataclasses

import coco_data
import cv2
import numpy as np
import pytest
from coco_data import batches, opened
from hypothesis import given
from hypothesis import strategies as st

from src.config import load_config
from src.data.box_order import evaluation_batches, training_batches
from src.data.box_split import UNUSED
from src.data.box_transforms import DRAWS, NO_CHANCE, Policy, boxes_in_original, shapes
from src.data.scenes import write_scenes
from src.device import World
from src.errors import UserError

sizes = st.tuples(st.integers(20, 300), st.integers(20, 300))
draws = st.lists(st.floats(0, 1, exclude_max=True), min_size=DRAWS, max_size=DRAWS)
POLICY = Policy((80, 133), (48, 64, 80), 0.5, (40, 50, 60), (38, 60), 0.5)


@given(size=sizes, draws=draws, place=st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_image_mask_and_box_stay_together(size, draws, place):
    """Protects what is learned: whatever is scaled, cut and mirrored, a rectangle stays where its box and mask are."""
    top, bottom = sorted(int(part * size[0]) for part in place[:2])
    left, right = sorted(int(part * size[1]) for part in place[2:])
    mask = np.zeros(size, np.uint8)
    mask[top : bottom + 1, left : right + 1] = 1
    boxes = np.array([[left, top, min(right + 1, size[1]), min(bottom + 1, size[0])]], float)
    change = POLICY.change(size, draws)
    pixels, drawn = change.image(np.repeat(255 * mask[..., None], 3, 2)), change.mask(mask)
    assert pixels.shape[:2] == drawn.shape == change.size
    wide, tall = shapes((80, 133), 32)
    assert all(side <= room for side, room in zip(change.size, tall if change.is_tall else wide))
    ((x1, y1, x2, y2),), (is_left,) = change.boxes(boxes)
    rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    if not is_left:
        assert not len(rows) or min(len(rows), len(columns)) <= 2 * max(change.size[0] / 38, 1)
    elif len(rows):
        # A pixel of the mask before, cut out and scaled up, is some after.
        slack = 1 + 2 * max(now / was for now, was in zip(change.size, change.part[2:] if change.part else size))
        for found, there in zip((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1), (x1, y1, x2, y2)):
            assert abs(found - there) <= slack
    assert 0 <= x1 <= x2 <= change.size[1] and 0 <= y1 <= y2 <= change.size[0]


@given(size=sizes, boxes=st.lists(st.tuples(*[st.floats(0, 1)] * 4), min_size=1, max_size=5))
def test_boxes_come_back(size, boxes):
    """Protects the AP: from an image to the network's picture and back, to the last digits, at any ratio."""
    boxes = np.sort(np.array(boxes).reshape(-1, 2, 2), axis=1).reshape(-1, 4) * [size[1], size[0], size[1], size[0]]
    change = Policy((80, 133)).change(size, NO_CHANCE)
    there, _ = change.boxes(boxes)
    np.testing.assert_allclose(boxes_in_original(there, change.size, size), boxes, atol=1e-9)
    flipped, _ = dataclasses.replace(change, is_flipped=True).boxes(boxes)
    np.testing.assert_allclose(flipped[:, [2, 0]], change.size[1] - there[:, [0, 2]], atol=1e-9)


def test_policies_are_the_published_ones():
    """Swin's on COCO: half of the images in one of eleven sizes, half cut first; each choice occurs, none beyond."""
    policy = Policy((800, 1333), range(480, 801, 32), 0.5, (400, 500, 600), (384, 600), 0.5)
    random = np.random.default_rng(0)
    changes = [policy.change((480, 640), random.random(DRAWS)) for _ in range(3000)]
    cut = [change for change in changes if change.part]
    assert abs(len(cut) / 3000 - 0.5) < 0.03 and abs(sum(c.is_flipped for c in changes) / 3000 - 0.5) < 0.03
    assert {min(change.scaled) for change in cut} == {400, 500, 600}
    assert {min(change.size) for change in changes if not change.part} == {*range(480, 801, 32)}
    for change in cut:
        top, left, height, width = change.part
        assert 384 <= height <= min(600, change.scaled[0]) and 384 <= width <= min(600, change.scaled[1])
        assert 0 <= top <= change.scaled[0] - height and 0 <= left <= change.scaled[1] - width
        assert min(change.size) <= 800 and max(change.size) <= 1333
    assert any(change.is_tall for change in cut) and not any(c.is_tall for c in changes if not c.part)


@given(tall=st.integers(0, 30), wide=st.integers(0, 30), batch=st.integers(1, 4), workers=st.integers(1, 3))
def test_batches_have_one_shape_and_each_image_once(tall, wide, batch, workers):
    """Over all workers: in training no image twice and all but what fills no batch, in evaluation every one."""
    is_tall = np.random.default_rng(0).permutation([True] * tall + [False] * wide).astype(bool)
    size = batch * workers
    made = training_batches(is_tall, size, np.random.default_rng([0, 1]))
    assert len(made) == tall // size + wide // size and len(np.unique(made)) == made.size
    assert all(len({*is_tall[row].tolist()}) == 1 for row in made)
    fixed = training_batches(is_tall, size, np.random.default_rng([0, 1]), is_changing=True)
    assert len(fixed) == max((tall + wide) // size - 1, 0) and all(len({*is_tall[row].tolist()}) == 1 for row in fixed)
    if len(is_tall):
        positions, index = evaluation_batches(is_tall, size)
        assert sorted(index[index >= 0]) == [*range(len(is_tall))]
        assert all(len({*is_tall[row].tolist()}) == 1 for row in positions)
        np.testing.assert_array_equal(positions[index >= 0], index[index >= 0])


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Scenes with masks, and the `Config` of a network that has some: parts cut out, several sizes, flips."""
    folder = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(folder, {"training": 30, "validation": 13})
    config = coco_data.settings(
        *(folder, "maskrcnn", 10, 2),
        **dict(
            scale=[96.0, 128.0], short_sides=[64.0, 96.0], crop=0.5, crop_short_sides=[80.0], crop_sides=[40.0, 80.0]
        ),
        max_boxes=8,
    )
    split = {"train": "training", "val": "validation"}
    paths = {f"{name}_images": f"images/{of}" for name, of in split.items()}
    paths |= {f"{name}_annotations": f"instances_{of}.json" for name, of in split.items()}
    return dataclasses.replace(config, detection=dataclasses.replace(config.detection, **paths))


def test_training_batches(scenes):
    """Shapes, types and what they hold: labels with room behind, boxes inside of the picture, masks inside of boxes."""
    made = batches(scenes, opened(scenes, "train", True))
    assert {batch[0].shape for batch in made} == {(2, 3, 96, 128), (2, 3, 128, 96)}
    for image, size, boxes, labels, masks in made:
        assert (size.shape, boxes.shape, labels.shape) == ((2, 2), (2, 8, 4), (2, 8))
        assert masks.shape == (2, 8, *image.shape[2:]) and masks.dtype == np.uint8 and masks.max() == 1
        assert [part.dtype for part in (image, size, boxes, labels)] == [*[np.float32] * 3, np.int32]
        assert (boxes[labels == UNUSED] == 0).all() and (boxes >= 0).all()
        assert (np.diff((labels == UNUSED).astype(int)) >= 0).all()
        for number, (height, width) in enumerate(size.astype(int)):
            assert not image[number, :, height:].any() and not image[number, :, :, width:].any()
            assert image[number, :, height - 1, width - 1].any()
            assert (boxes[number] <= [width, height, width, height]).all()
            for (x1, y1, x2, y2), label, mask in zip(boxes[number], labels[number], masks[number]):
                rows, columns = np.nonzero(mask)
                assert label >= 0 or not len(rows)
                if len(rows):
                    assert min(x1 - columns.min(), y1 - rows.min(), columns.max() - x2, rows.max() - y2) < 4


def test_chance_follows_seed_epoch_and_position_alone(scenes):
    """Protects a resumed run, and figures: the same on any number of threads and workers, and after skipped steps."""
    listed = opened(scenes, "train", True)
    whole = batches(scenes, listed)
    other = dataclasses.replace(scenes, data=dataclasses.replace(scenes.data, num_workers=1))
    for one, again in zip(whole, batches(other, listed), strict=True):
        assert all(map(np.array_equal, one, again))
    for one, again in zip(whole[5:], batches(scenes, listed, skip=5), strict=True):
        assert all(map(np.array_equal, one, again))
    single = dataclasses.replace(scenes, data=dataclasses.replace(scenes.data, batch_size=1))
    halves = [batches(single, listed, world=World(rank, 2)) for rank in (0, 1)]
    for one, *parts in zip(whole, *halves, strict=True):
        for column, left, right in zip(one, *parts):
            np.testing.assert_array_equal(column, np.concatenate([left, right]))
    next_epoch = batches(scenes, listed, epoch=1)
    assert len(next_epoch) == len(whole)
    assert not any(np.array_equal(one[2], other[2]) for one, other in zip(whole, next_epoch))


def test_evaluation_batches(scenes):
    """Each image once over all workers, whole, of the same size each time; what fills up a batch is marked."""
    listed = opened(scenes, "val", True)
    found = {}
    for rank in (0, 1):
        made = batches(scenes, listed, "val", World(rank, 2))
        for image, size, index in made:
            assert len(index) == 2 and index.dtype == np.int32
            found |= {int(number): (pixels, there) for number, pixels, there in zip(index, image, size) if number >= 0}
    assert sorted(found) == [*range(13)]
    for number, (pixels, (height, width)) in found.items():
        factor = min(96 / min(listed.size(number)), 128 / max(listed.size(number)))
        assert [height, width] == [int(side * factor + 0.5) for side in listed.size(number)]
        scaled = cv2.resize(listed.pixels(number), (int(width), int(height)))
        mean, std = (np.array(part, np.float32) for part in (scenes.data.mean, scenes.data.std))
        there = ((scaled / np.float32(255) - mean) / std).transpose(2, 0, 1)
        np.testing.assert_allclose(pixels[:, : int(height), : int(width)], there, atol=1e-5)


def test_too_few_images_of_one_shape(coco_folder):
    with pytest.raises(
        UserError, match=r"has 2 images, 1 of them tall, but 1 worker\(s\) take at least 2 each that are"
    ):
        batches(coco_data.settings(coco_folder, batch_size=2), opened(coco_data.settings(coco_folder)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "{model: {name: resnet26, head: retinanet}}",
            "model.head belongs to task detection but task is classification",
        ),
        (
            "{task: detection, model: {name: resnet26}}",
            "model.head takes retinanet, maskrcnn or cascade_maskrcnn where",
        ),
        (
            "{task: detection, model: {name: resnet26, head: fpn}}",
            "model.head belongs to task segmentation but task is det",
        ),
        ("{model: {name: resnet26}, detection: {divisor: 8}}", "detection.divisor belongs to task detection"),
        (
            "{task: detection, model: {name: resnet26, head: retinanet, image_size: 224}}",
            r"model.image_size is \[224, 224\] but takes \[800, 1344\], the sides of detection.scale raised",
        ),
        (
            "{task: detection, model: {name: resnet26, head: retinanet, image_size: [800, 1344]}, "
            "train: {data_sink: true}, device: {target: Ascend}}",
            "train.data_sink takes pictures of one shape",
        ),
        (
            "{task: detection, model: {name: resnet26, head: retinanet, image_size: [800, 1344]}, "
            "detection: {short_sides: [480, 832]}}",
            "detection.short_sides has 832 but takes at most the shorter side of detection.scale, 800",
        ),
        (
            "{task: detection, model: {name: resnet26, head: retinanet, image_size: [800, 1344]}, data: {mixup: 0.1}}",
            "data.mixup belongs to task classification but task is detection",
        ),
    ],
)
def test_settings_that_do_not_fit(text, message, tmp_path):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_config(tmp_path / "a.yaml")
