# SPDX-License-Identifier: Apache-2.0
"""What COCO's files may say, and how each mistake in them is named."""

import contextlib
import io
import json

import coco_data
import numpy as np
import pytest
from coco_data import RUNS, batches, box, content, opened
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco
from pycocotools.coco import COCO

from src.data.box_split import IGNORED
from src.data.boxes import check_boxes, read_annotations
from src.data.coco_file import read_coco
from src.data.coco_masks import TEXT, packed, run_lengths
from src.device import World
from src.errors import UserError


def test_classes_follow_the_ids_whatever_the_order_of_the_file(coco_folder):
    """Protects from an AP of 0: ids with gaps, in any order; 0 is the smallest of them, and each is found again."""
    listed = opened(coco_data.settings(coco_folder), "val")
    assert listed.names == ["cat", "dog", "tree"] and listed.category_ids().tolist() == [2, 7, 90]
    assert [listed.image_id(position) for position in range(3)] == [30, 10, 20]
    first, second, third = (listed.objects(position) for position in range(3))
    assert first.labels.tolist() == [0, 2, IGNORED] and second.labels.tolist() == [1] and third.labels.size == 0
    np.testing.assert_array_equal(first.boxes, [[1, 1, 3, 3], [4, 2, 7.5, 4.5], [1, 1, 3, 3]])


def test_own_classes_are_found_by_name(coco_folder):
    """A list in another order, and not of all: the rest is left out and told, and ids come back."""
    (coco_folder / "own.txt").write_text("tree\ncat\n")
    config = coco_data.settings(coco_folder, classes=2, class_names="own.txt")
    listed = opened(config, "val")
    assert listed.names == ["tree", "cat"] and listed.category_ids().tolist() == [90, 2]
    assert listed.objects(0).labels.tolist() == [1, 0] and listed.objects(1).labels.size == 0
    assert any("2 boxes are of categories that are no classes" in note for note in listed.notes())
    assert opened(config, "train").images == 1
    (coco_folder / "own.txt").write_text("Tree\ncat\n")
    with pytest.raises(UserError, match=r"no category 'Tree', which is one of the classes; did you mean 'tree'\?"):
        opened(config)
    (coco_folder / "own.txt").write_text("cat\ncat\n")
    with pytest.raises(UserError, match="has the class 'cat' twice"):
        opened(config)
    with pytest.raises(UserError, match=r"has 3 categories .*num_classes is 80; give --model.num_classes 3, or those"):
        opened(coco_data.settings(coco_folder, classes=80))


def test_images_without_boxes_stay_in_the_evaluation_alone(coco_folder):
    """Protects from the failure of others: dropped in the test too, or a key without an effect."""
    config = coco_data.settings(coco_folder)
    assert opened(config, "val").images == 3
    train = opened(config)
    assert [train.image_id(position) for position in range(train.images)] == [30, 10]
    assert any(
        note.endswith("1 images without a box stay out; detection.keep_empty takes them") for note in train.notes()
    )
    everything = opened(coco_data.settings(coco_folder, keep_empty=True))
    assert everything.images == 3 and not any("stay out" in note for note in everything.notes())
    *_, labels = batches(coco_data.settings(coco_folder, keep_empty=True), everything)[-1]
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


def test_more_boxes_than_room_name_the_image_and_the_mend(coco_folder):
    with pytest.raises(
        UserError, match=r"30\.png \(id 30\) has 3 boxes but .* room for 2; give --detection.max_boxes 3$"
    ):
        opened(coco_data.settings(coco_folder, max_boxes=2))
    assert opened(coco_data.settings(coco_folder, max_boxes=3)).images == 2


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
def test_files_that_are_none(text, problem, coco_folder):
    (coco_folder / "said.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match=problem):
        opened(coco_data.settings(coco_folder, classes=1), "val")


def test_files_that_are_not_there(coco_folder):
    """The annotations, the coco_folder of images, an image in it."""
    config = coco_data.settings(coco_folder)
    (coco_folder / "pictures" / "10.png").unlink()
    with pytest.raises(UserError, match=r"cannot read image .*10\.png"):
        opened(config).pixels(1)
    (coco_folder / "pictures").rename(coco_folder / "elsewhere")
    with pytest.raises(
        UserError, match=r"no image .*30.png, which .*said.json names \(id 30\); detection.train_images"
    ):
        opened(config)
    (coco_folder / "said.json").unlink()
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


def test_reading_keeps_no_dicts(coco_folder):
    """Protects the memory of COCO's 860,000 annotations: objects of the file are taken apart while it is parsed."""
    file = read_coco(coco_folder / "said.json", with_masks=True)
    assert file.rows.dtype.itemsize * len(file.rows) == file.rows.nbytes and isinstance(file.mask_bytes, bytearray)
    assert file.rows["id"].tolist() == [900100, 3, 2, 5] and file.mask(0)[1] == packed(RUNS)[1]
