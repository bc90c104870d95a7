# SPDX-License-Identifier: Apache-2.0
"""Images with boxes and masks on their way to a detector: what COCO's files may say, and that all stays together."""

import contextlib
import dataclasses
import io
import json

import coco_data
import cv2
import numpy as np
import pytest
from coco_data import RUNS, box, content
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco
from pycocotools.coco import COCO

from src.config import load_config
from src.data.box_order import evaluation_batches, training_batches
from src.data.box_split import IGNORED, UNUSED
from src.data.box_transforms import DRAWS, NO_CHANCE, Policy, boxes_in_original, shapes
from src.data.boxes import check_boxes, class_names, create_box_dataset, list_boxes, open_annotations, read_annotations
from src.data.coco_file import read_coco
from src.data.coco_masks import TEXT, packed, run_lengths
from src.data.scenes import write_scenes
from src.device import World
from src.errors import UserError

ALONE = World()


def opened(config, split="train", with_masks=False):
    file = open_annotations(config, split, with_masks)
    return list_boxes(config, split, file, class_names(config, file), with_masks)


def batches(config, listed, split="train", world=ALONE, epoch=0, skip=0):
    made = create_box_dataset(config, listed, split, world, epoch)
    made = made.skip(skip) if skip else made
    return list(made.create_tuple_iterator(num_epochs=1, output_numpy=True))


@pytest.fixture
def folder(tmp_path):
    return coco_data.write(tmp_path)


def test_classes_follow_the_ids_whatever_the_order_of_the_file(folder):
    """Protects from an AP of 0: ids with gaps, in any order; 0 is the smallest of them, and each is found again."""
    listed = opened(coco_data.settings(folder), "val")
    assert listed.names == ["cat", "dog", "tree"] and listed.category_ids().tolist() == [2, 7, 90]
    assert [listed.image_id(position) for position in range(3)] == [30, 10, 20]
    first, second, third = (listed.objects(position) for position in range(3))
    assert first.labels.tolist() == [0, 2, IGNORED] and second.labels.tolist() == [1] and third.labels.size == 0
    np.testing.assert_array_equal(first.boxes, [[1, 1, 3, 3], [4, 2, 7.5, 4.5], [1, 1, 3, 3]])


def test_own_classes_are_found_by_name(folder):
    """A list in another order, and not of all: the rest is left out and told, and ids come back."""
    (folder / "own.txt").write_text("tree\ncat\n")
    config = coco_data.settings(folder, classes=2, class_names="own.txt")
    listed = opened(config, "val")
    assert listed.names == ["tree", "cat"] and listed.category_ids().tolist() == [90, 2]
    assert listed.objects(0).labels.tolist() == [1, 0] and listed.objects(1).labels.size == 0
    assert any("2 boxes are of categories that are no classes" in note for note in listed.notes())
    assert opened(config, "train").images == 1
    (folder / "own.txt").write_text("Tree\ncat\n")
    with pytest.raises(UserError, match=r"no category 'Tree', which is one of the classes; did you mean 'tree'\?"):
        opened(config)
    (folder / "own.txt").write_text("cat\ncat\n")
    with pytest.raises(UserError, match="has the class 'cat' twice"):
        opened(config)
    with pytest.raises(UserError, match=r"has 3 categories .*num_classes is 80; give --model.num_classes 3, or those"):
        opened(coco_data.settings(folder, classes=80))


def test_images_without_boxes_stay_in_the_evaluation_alone(folder):
    """Protects from the failure of others: dropped in the test too, or a key without an effect."""
    config = coco_data.settings(folder)
    assert opened(config, "val").images == 3
    train = opened(config)
    assert [train.image_id(position) for position in range(train.images)] == [30, 10]
    assert any(
        note.endswith("1 images without a box stay out; detection.keep_empty takes them") for note in train.notes()
    )
    everything = opened(coco_data.settings(folder, keep_empty=True))
    assert everything.images == 3 and not any("stay out" in note for note in everything.notes())
    *_, labels = batches(coco_data.settings(folder, keep_empty=True), everything)[-1]
    assert labels.dtype == np.int32


def test_what_is_left_out_is_counted(tmp_path):
    """The rules of mmdetection: no area, under a pixel, outside of the image, marked so; the rest stays as it is."""
    said = content()
    said["annotations"] = [
        box(1, 30, 2, [1, 1, 3, 3], area=0),
        box(2, 30, 2, [1, 1, 0.5, 3]),
        box(3, 30, 2, [1, 1, 3, 0.9]),
        box(4, 30, 2, [8, 0, 3, 3]),
        box(5, 30, 2, [-4, 0, 3, 3]),
        box(6, 30, 2, [1, 1, 3, 3], ignore=1),
        box(7, 30, 2, [-1, -1, 3, 30]),
        {"id": 8, "image_id": 30, "category_id": 2, "bbox": [1, 1, 2, 2]},
        box(9, 10, 2, [0, 0, 3, 3], iscrowd=1),
    ]
    listed = opened(coco_data.settings(coco_data.write(tmp_path, said)))
    assert listed.file.rows["id"][listed.objects(0).rows].tolist() == [7, 8]
    notes = " | ".join(listed.notes())
    assert (
        "6 boxes have no area, are outside of their image or marked 'ignore': not learned from" in notes
        and "1 annotations have no area" in notes
    )
    assert "2 of 3 classes have no box: dog, tree" in notes
    # A picture of crowds alone has regions to be ignored, as in mmdetection.
    assert listed.images == 2 and listed.objects(1).labels.tolist() == [IGNORED]


def test_nothing_to_learn_from_is_an_error(tmp_path):
    """Protects from a run without results: each box marked `iscrowd`, as tools write for run lengths."""
    said = content()
    for annotation in said["annotations"]:
        annotation["iscrowd"] = 1
    with pytest.raises(UserError, match="no box to learn from: all 4 annotations are crowds, or left out"):
        opened(coco_data.settings(coco_data.write(tmp_path, said)))


def test_more_boxes_than_room_name_the_image_and_the_mend(folder):
    with pytest.raises(
        UserError, match=r"30\.png \(id 30\) has 3 boxes but .* room for 2; give --detection.max_boxes 3$"
    ):
        opened(coco_data.settings(folder, max_boxes=2))
    assert opened(coco_data.settings(folder, max_boxes=3)).images == 2


def changed(kind, number, **values):
    """Return `content()` with other values of one record; None takes a value away."""
    said = content()
    said[kind][number].update(values)
    said[kind][number] = {name: value for name, value in said[kind][number].items() if value is not None}
    return said


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (changed("annotations", 0, category_id=3), "annotation 5 of image 10: category_id 3 is none of the categories"),
        (changed("annotations", 0, image_id=11), "annotation 5 of image 11: no image has this id"),
        (changed("annotations", 0, id=3), "annotation 3 of image 30: this annotation id is there twice"),
        (changed("annotations", 0, id="5"), "annotation 5 of image 10: id is '5' but takes a whole number"),
        (changed("annotations", 0, bbox=None), "annotation 5 of image 10: bbox is None but takes four numbers"),
        (changed("annotations", 0, bbox=[1, 2, 3]), r"annotation 5 of image 10: bbox is \[1, 2, 3\] but takes four"),
        (
            changed("annotations", 0, bbox=[1, 2, "3", 4]),
            "annotation 5 of image 10: bbox, area or a flag is not a number",
        ),
        (
            changed("annotations", 0, bbox=[1, 2, -3, 4]),
            r"annotation 5 of image 10: bbox is \[1.0, 2.0, -3.0, 4.0\] but",
        ),
        (
            changed("annotations", 0, bbox=[1, 2, float("nan"), 4]),
            "annotation 5 of image 10: bbox or area .* not finite",
        ),
        (changed("annotations", 0, iscrowd="0"), "annotation 5 of image 10: bbox, area or a flag is not a number"),
        (changed("annotations", 0, image_id=None), "annotation {'id': 5, .* is not as {id, image_id"),
        (changed("images", 1, id=30), "image id 30 is there twice"),
        (
            changed("images", 1, height=None),
            r"image 10 \(10.png\) takes height and width, at most 100000000 pixels together, but has None",
        ),
        (changed("images", 1, height=10**8), r"image 10 \(10.png\) takes height .* but has 100000000, 6; mend it"),
        (changed("images", 1, width="6"), r"image 10 \(10.png\) takes height .* but has 8, '6'; mend it"),
        (changed("images", 1, file_name="a\0"), r"image \(10, 'a.x00', 8, 6\) takes id, a whole number, and file_name"),
        (changed("images", 1, file_name=None), "image {'id': 10, .* takes id, a whole number, and file_name"),
        (changed("categories", 1, id=7), "category id 7 is there twice"),
        (changed("categories", 1, name="dog"), "category 'dog' is there twice, with several ids"),
        (changed("categories", 1, name=None), "category {'id': 2} takes id, a whole number, and name"),
    ],
)
def test_each_mistake_in_the_file_is_named(said, problem, tmp_path):
    """One line with the ids, before anything is trained; what is not wrong could still be used."""
    config = coco_data.settings(coco_data.write(tmp_path, said))
    problems = read_annotations(config, "train", False).problems
    assert len(problems) in (1, 2) and len(problems[0].splitlines()) == 1
    with pytest.raises(UserError, match=rf"^.*said\.json: {problem}"):
        opened(config)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            json.dumps(content())[:300],
            r"said.json is no JSON, or truncated \(.*line 1, column \d+\); mend or replace it",
        ),
        ("", "is no JSON, or truncated"),
        ("\ud800", "is no JSON"),
        ("[" * 100000, "is no JSON"),
        ("[]", "has no list 'images'"),
        ('{"images": [], "annotations": [0], "categories": []}', "annotation 0 is not as {id, image_id"),
        ('{"images": [], "annotations": []}', "has no list 'categories'"),
        ('{"images": [], "annotations": {}, "categories": []}', "has no list 'annotations'"),
        ('{"images": [], "categories": [{"id": 1, "name": "a"}]}', "has no image"),
    ],
)
def test_files_that_are_none(text, problem, folder):
    (folder / "said.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match=problem):
        opened(coco_data.settings(folder, classes=1), "val")


def test_files_that_are_not_there(folder):
    """The annotations, the folder of images, an image in it."""
    config = coco_data.settings(folder)
    (folder / "pictures" / "10.png").unlink()
    with pytest.raises(UserError, match=r"cannot read image .*10\.png"):
        opened(config).pixels(1)
    (folder / "pictures").rename(folder / "elsewhere")
    with pytest.raises(
        UserError, match=r"no image .*30.png, which .*said.json names \(id 30\); detection.train_images"
    ):
        opened(config)
    (folder / "said.json").unlink()
    with pytest.raises(UserError, match=r"cannot read .*said\.json .*section detection names the annotation files"):
        opened(config)


@pytest.mark.parametrize(
    ("segmentation", "problem"),
    [
        ([[0, 0, 3, 0]], "has a polygon of 4 numbers, which takes an even number from 6 on"),
        ([[0, 0, 3, 0, 3, 4, 1]], "has a polygon of 7 numbers"),
        ([[0, 0, 3, 0, 3, 4], [1, 1]], "has a polygon of 2 numbers"),
        ([[0, 0, 3, 0, 3, 1e9]], "has a polygon with numbers from 0 to 1e[+]09, far beyond"),
        ([[0, 0, 3, 0, 3, "4"]], "is neither polygons"),
        ([0, 0, 3, 0, 3, 4], "is neither polygons"),
        ({"size": [6, 8], "counts": [48]}, r"has the size \[6, 8\] but its image has \[8, 6\]"),
        ({"size": [8, 6], "counts": [40, 7]}, "has run lengths of 47 pixels but its image has 48"),
        ({"size": [8, 6], "counts": [-1, 49]}, "has run lengths of 48 pixels"),
        ({"size": [8, 6], "counts": "0"}, "has run lengths of 0 pixels"),
        ({"size": [8, 6], "counts": "000000h"}, "has run lengths of"),
        ({"size": [8, 6], "counts": "\u00e9"}, "is neither polygons"),
        ({"size": [8, 6]}, "is neither polygons"),
    ],
)
def test_each_mistake_in_a_mask_is_named(segmentation, problem, tmp_path, capsys):
    """In training where its image comes, before an evaluation, and by --check_data; boxes alone need no mask."""
    config = coco_data.settings(coco_data.write(tmp_path, changed("annotations", 0, segmentation=segmentation)))
    line = rf"said.json: the mask of annotation 5 of image 10 {problem}"
    with pytest.raises(UserError, match=line):
        opened(config, "train", True).mask(3)
    with pytest.raises(UserError, match=line):
        opened(config, "val", True)
    file = read_annotations(config, "val", True)
    assert check_boxes(config, file, "val", True, World()) == 1
    assert len([text for text in capsys.readouterr().err.splitlines() if "annotation 5 of image 10" in text]) == 1
    assert opened(config, "val", False).images == 3


def test_check_data_names_everything(tmp_path, capsys):
    """All mistakes at once: in the file, images that are damaged, or of another size, or gone."""
    folder = coco_data.write(tmp_path, changed("annotations", 0, category_id=3))
    (folder / "pictures" / "30.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(folder / "pictures" / "10.png")
    (folder / "pictures" / "20.png").unlink()
    config = coco_data.settings(folder)
    file = read_annotations(config, "val", False)
    assert check_boxes(config, file, "val", False, World()) == 4
    said = capsys.readouterr().err
    for line in (
        "category_id 3 is none",
        "30.png is truncated or damaged",
        r"10.png (id 10) has 8 x 6 pixels but",
        "cannot read image",
    ):
        assert line in said
    shares = [check_boxes(config, file, "val", False, World(rank, 2)) for rank in (0, 1)]
    assert sum(shares) == 4


def test_masks_are_pycocotools(tmp_path):
    """Polygons of several parts, runs and runs as text are drawn as COCO's own code draws them; none is all 0."""
    polygons = [[0.5, 0.5, 4.2, 0.5, 4.2, 5.1], [1, 3, 3, 3, 3, 7, 1, 7]]
    text = coco.encode(np.asfortranarray(np.random.default_rng(0).integers(0, 2, (8, 6), np.uint8)))
    said = content()
    for number, shape in enumerate((polygons, {**text, "counts": text["counts"].decode()}, None, [], [[]])):
        said["annotations"].append(box(100 + number, 10, 7, [0, 0, 5, 5], segmentation=shape))
    folder = coco_data.write(tmp_path, said)
    listed = opened(coco_data.settings(folder, max_boxes=9, head="maskrcnn"), "train", True)
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(folder / "said.json")
    for row, id in enumerate(listed.file.rows["id"]):
        if id in (102, 103, 104):
            assert not listed.mask(row).any()
        else:
            np.testing.assert_array_equal(listed.mask(row), reference.annToMask(reference.anns[id]))
    assert any("3 boxes have no mask: regions to be ignored" in note for note in listed.notes())
    assert listed.objects(1).labels.tolist() == [1, 1, 1, IGNORED, IGNORED, IGNORED]
    assert opened(coco_data.settings(folder, max_boxes=9)).objects(1).labels.tolist() == [1] * 6


@given(seed=st.integers(0, 10**6), height=st.integers(1, 40), width=st.integers(1, 40), share=st.floats(0, 1))
def test_run_lengths_as_text_are_read(seed, height, width, share):
    """Protects pycocotools from text that writes beyond its memory: our sum is that of its own text."""
    mask = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
    text = coco.encode(np.asfortranarray(mask))["counts"].decode()
    runs = run_lengths(*packed({"size": [height, width], "counts": text}), (height, width))
    assert packed({"size": [height, width], "counts": text})[0] == TEXT
    np.testing.assert_array_equal(coco.decode(runs), mask)


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


def test_too_few_images_of_one_shape(folder):
    with pytest.raises(
        UserError, match=r"has 2 images, 1 of them tall, but 1 worker\(s\) take at least 2 each that are"
    ):
        batches(coco_data.settings(folder, batch_size=2), opened(coco_data.settings(folder)))


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


def test_only_the_lists_of_a_file_count(tmp_path):
    """Protects from objects elsewhere that look like annotations, and from keys that others add."""
    said = content()
    said["images"][0]["best"] = box(77, 30, 2, [0, 0, 1, 1])
    said["images"][1]["image_id"] = 10
    said["annotations"][1]["file_name"] = "30.png"
    said["info"] = {"example": box(78, 30, 2, [0, 0, 1, 1], segmentation=RUNS)}
    config = coco_data.settings(coco_data.write(tmp_path, said))
    listed, plain = opened(config, "val", True), opened(coco_data.settings(coco_data.write(tmp_path)), "val", True)
    assert listed.file.rows["id"].tolist() == plain.file.rows["id"].tolist() == [900100, 3, 2, 5]
    for row in range(4):
        np.testing.assert_array_equal(listed.mask(row), plain.mask(row))


def test_names_that_no_file_can_have(tmp_path):
    """What is no text is still named in a line."""
    config = coco_data.settings(coco_data.write(tmp_path, changed("images", 1, file_name="a\ud83d.png")))
    with pytest.raises(UserError, match="cannot read image"):
        opened(config).pixels(1)


def test_reading_keeps_no_dicts(folder):
    """Protects the memory of COCO's 860,000 annotations: objects of the file are taken apart while it is parsed."""
    file = read_coco(folder / "said.json", with_masks=True)
    assert file.rows.dtype.itemsize * len(file.rows) == file.rows.nbytes and isinstance(file.mask_bytes, bytearray)
    assert file.rows["id"].tolist() == [900100, 3, 2, 5] and file.mask(0)[1] == packed(RUNS)[1]
