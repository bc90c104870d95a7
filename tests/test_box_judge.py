# SPDX-License-Identifier: Apache-2.0
"""How boxes and masks are judged: by the reference's answers, from the network's pictures back to files of results."""

import copy
import csv
import dataclasses
import json
import threading

import coco_data
import mindspore as ms
import numpy as np
import pytest
from coco_data import box, content
from golden_network import GOLDEN
from PIL import Image
from pycocotools import mask as coco

from src.data.box_split import split_of
from src.data.box_transforms import boxes_in_original
from src.data.boxes import create_box_dataset
from src.data.coco_file import read_coco
from src.device import World
from src.errors import UserError
from src.tasks import box_judge
from src.tasks.box_judge import BoxJudge
from src.tasks.coco_ap import NUMBERS, average_precision, truth_of
from src.tasks.detection import Detection
from src.training.evaluate import evaluate
from src.training.run_folder import RunFolder

REFERENCE = GOLDEN / "downstream"
OPERATORS = json.loads((REFERENCE / "operators.json").read_text())["cases"]
# pycocotools' names for the numbers of `NUMBERS`.
THEIRS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def golden_split(with_masks):
    file = read_coco(REFERENCE / "coco_gt.json", with_masks)
    return split_of(REFERENCE, file, file.category_names, with_masks)


def golden_results(kind):
    results = json.loads((REFERENCE / "coco_dt.json").read_text())
    return [{name: value for name, value in each.items() if (name == "bbox") <= (kind == "bbox")} for each in results]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_the_twelve_numbers_are_the_reference_s(kind):
    """Boxes and masks, crowds, images without objects and a category without any: as pycocotools judged them."""
    listed, case = golden_split(kind == "segm"), OPERATORS["coco"][kind]
    numbers, by_category = average_precision(truth_of(listed, kind), golden_results(kind), kind)
    assert list(numbers) == list(NUMBERS)
    for name, theirs in zip(NUMBERS, THEIRS):
        assert numbers[name] / 100 == pytest.approx(case[theirs], abs=1e-12), name
    for id, value in case["per_category_AP"].items():
        got, _ = by_category[int(id)]
        assert (got / 100 if got >= 0 else got) == pytest.approx(value, abs=1e-12)


def test_an_annotation_with_the_id_0_is_found():
    """Protects from pycocotools, which takes a match with it for a miss: the numbers do not change with the ids."""
    listed = golden_split(False)
    listed.file.rows["id"] -= listed.file.rows["id"].min()
    numbers, _ = average_precision(truth_of(listed, "bbox"), golden_results("bbox"), "bbox")
    assert numbers["ap"] / 100 == pytest.approx(OPERATORS["coco"]["bbox"]["AP"], abs=1e-12)


@pytest.mark.parametrize(("most", "share"), [(10, 100 / 120), (120, 1)])
def test_more_detections_than_a_hundred_count_where_they_are_given(most, share):
    """Protects `detection.max_detections` of crowded images, which pycocotools forgets beyond its own 100."""
    boxes = [{"image_id": 1, "category_id": 1, "bbox": [10 * i, 0, 8, 8], "area": 64, "iscrowd": 0} for i in range(120)]
    truth = {"images": [{"id": 1}], "categories": [{"id": 1}]}
    truth["annotations"] = [{**each, "id": number} for number, each in enumerate(boxes, 1)]
    got, _ = average_precision(truth, [{**each, "score": 0.5} for each in boxes], "bbox", most)
    assert got["ar100"] == pytest.approx(100 * share) and got["ap"] == pytest.approx(100 * share, abs=1)


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_nothing_found_is_0_and_nothing_to_find_is_minus_1(kind):
    """Protects from an end of training in a crash, where a young network finds nothing at all."""
    listed = golden_split(kind == "segm")
    numbers, by_category = average_precision(truth_of(listed, kind), [], kind)
    assert set(numbers.values()) == {0.0} and by_category[18] == (-1, -1)
    nothing = {**truth_of(listed, kind), "annotations": []}
    numbers, _ = average_precision(nothing, golden_results(kind), kind)
    assert set(numbers.values()) == {-1.0}


class Finder:
    """Stands in for a network that finds what `results` of COCO's format say, N of an image.

    It is asked with the positions of images in place of pictures.
    """

    step = None

    def __init__(self, listed, results, room=12, side=28):
        self.listed, self.room, self.side = listed, room, side
        self.labels = {id: label for label, id in enumerate(listed.category_ids().tolist())}
        self.by_image = {}
        for result in results:
            self.by_image.setdefault(result["image_id"], []).append(result)

    def __call__(self, index, size):
        images = len(index)
        boxes, scores = np.zeros((images, self.room, 4), np.float32), np.zeros((images, self.room), np.float32)
        labels = np.full((images, self.room), -1, np.int32)
        for number, position in enumerate(index.asnumpy()):
            found = self.by_image.get(self.listed.image_id(position), []) if position >= 0 else []
            original = self.listed.size(position)
            for place, result in enumerate(found):
                x, y, width, height = result["bbox"]
                there = boxes_in_original([[x, y, x + width, y + height]], original, size.asnumpy()[number])
                boxes[number, place], scores[number, place] = there[0], result["score"]
                labels[number, place] = self.labels[result["category_id"]]
        if not self.listed.with_masks:
            return boxes, scores, labels
        return boxes, scores, labels, np.ones((images, self.room, self.side, self.side), np.float32)


def judged(listed, results, folder, config, world=World(), most=100):  # noqa: B008
    """Judge `results` as the answers to the batches of a worker; return the `BoxJudge`."""
    judge = BoxJudge(Finder(listed, results), listed, folder, most)
    judge.begin()
    for _, size, index in create_box_dataset(config, listed, "val", world).create_tuple_iterator(num_epochs=1):
        judge.add(index, size, index)
    return judge


@pytest.fixture
def golden(tmp_path):
    """The golden data set with images, and its `Config`."""
    said = json.loads((REFERENCE / "coco_gt.json").read_text())
    (tmp_path / "pictures").mkdir()
    for image in said["images"]:
        blank = np.zeros((image["height"], image["width"], 3), np.uint8)
        Image.fromarray(blank).save(tmp_path / "pictures" / image["file_name"])
    (tmp_path / "said.json").write_text(json.dumps(said))
    return coco_data.settings(tmp_path, classes=4, batch_size=3, scale=[96.0, 128.0], max_boxes=20)


def opened(config, masks=False):
    task = Detection(config)
    task.with_masks = masks
    task.open_to_judge({}, "x")
    return task.splits["val"]


def test_from_pictures_to_files_of_results_to_ap(golden, tmp_path):
    """The whole way: boxes of scaled pictures go back, ids too, to files that give the reference's AP."""
    listed = opened(golden)
    judge = judged(listed, golden_results("bbox"), tmp_path / "out", golden)
    result = judge.result(World())
    assert result["samples"] == 12 and result["detections"] == 57
    for name, theirs in zip(NUMBERS, THEIRS):
        assert result[name] / 100 == pytest.approx(OPERATORS["coco"]["bbox"][theirs], abs=1e-9), name
    kept = json.loads((tmp_path / "out" / "bbox.json").read_text())
    expected = golden_results("bbox")

    def key(each):
        return each["image_id"], -each["score"], each["category_id"]

    for got, want in zip(sorted(kept, key=key), sorted(expected, key=key), strict=True):
        assert (got["image_id"], got["category_id"]) == (want["image_id"], want["category_id"])
        np.testing.assert_allclose(got["bbox"], want["bbox"], atol=1e-3)
        assert got["score"] == pytest.approx(want["score"], abs=1e-7)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["bbox.json"]
    judge.write_per_class(tmp_path / "classes.csv", World())
    with open(tmp_path / "classes.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["category_id"] for row in rows] == ["1", "3", "7", "18"] and rows[3]["ap"] == ""
    assert float(rows[0]["ap"]) == pytest.approx(100 * OPERATORS["coco"]["bbox"]["per_category_AP"]["1"], abs=0.01)


def test_several_workers_give_the_files_of_one(golden, tmp_path, monkeypatch):
    """Each image once: three workers' parts are one file, to the byte, and all of them learn the numbers."""
    listed, barrier, sent = opened(golden), threading.Barrier(3), {}

    def gather(values, world):
        sent[world.rank] = values
        barrier.wait()
        rows = np.stack([sent[rank] for rank in range(world.size)])
        barrier.wait()
        return rows

    alone = judged(listed, golden_results("bbox"), tmp_path / "alone", golden).result(World())
    monkeypatch.setattr(box_judge, "gather_from_workers", gather)
    worlds = [World(rank, 3) for rank in range(3)]
    judges = [judged(listed, golden_results("bbox"), tmp_path / "three", golden, world) for world in worlds]
    results = {}

    def finish(rank):
        try:
            results[rank] = judges[rank].result(worlds[rank])
        except UserError as error:
            results[rank] = str(error)

    def all_finish():
        threads = [threading.Thread(target=finish, args=(rank,)) for rank in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

    all_finish()
    assert results == {rank: pytest.approx(alone, rel=1e-12) for rank in range(3)}
    assert (tmp_path / "three" / "bbox.json").read_bytes() == (tmp_path / "alone" / "bbox.json").read_bytes()
    # A machine that does not share the folder.
    for judge in judges:
        judge.begin()
    judges[1].folder = tmp_path
    judges[1].samples = 1
    all_finish()
    assert all("give all machines an --output_dir that they share" in results[rank] for rank in range(3))


def test_masks_go_back_to_the_size_of_the_file(tmp_path):
    """Full boxes as masks: results in COCO's runs of the image's own size, judged by the areas of masks."""
    said = content()
    said["annotations"] = [
        box(1, 30, 2, [1, 1, 4, 3], segmentation=[[1, 1, 5, 1, 5, 4, 1, 4]]),
        box(2, 30, 7, [4, 2, 4, 4]),
        box(3, 10, 90, [0, 4, 6, 4], segmentation=[[0, 4, 6, 4, 6, 8, 0, 8]]),
    ]
    config = coco_data.settings(coco_data.write(tmp_path, said), "maskrcnn")
    task = Detection(config)
    task.open_to_judge({}, "x")
    found = [{**each, "score": 0.9 - each["id"] / 10} for each in said["annotations"]]
    judge = judged(task.splits["val"], found, tmp_path / "out", config)
    result = judge.result(World())
    # The box without a mask is no miss by masks, and what was found there no mistake.
    assert [result["ap"], result["mask_ap"]] == pytest.approx([100, 100])
    kept = json.loads((tmp_path / "out" / "segm.json").read_text())
    assert [each["category_id"] for each in kept] == [2, 7, 90] and "bbox" not in kept[0]
    np.testing.assert_array_equal(np.argwhere(coco.decode(kept[0]["segmentation"])).min(0), [1, 1])
    assert [int(coco.area(each["segmentation"])) for each in kept] == [12, 16, 24]
    assert "mask AP 100.00 %" in task.told(result)


def test_only_the_best_are_kept_and_no_nonsense(golden, tmp_path):
    """`max_detections`, and a network whose numbers are no longer finite: no results, an AP of 0, no crash."""
    listed = opened(golden)
    judge = judged(listed, golden_results("bbox"), tmp_path / "out", golden, most=2)
    assert judge.result(World())["detections"] == sum(
        min(2, count)
        for count in np.unique([each["image_id"] for each in golden_results("bbox")], return_counts=True)[1]
    )
    for number, value in (("score", np.nan), ("bbox", [np.inf, 0, 1, 1])):
        broken = [{**each, number: value} for each in golden_results("bbox")]
        result = judged(listed, broken, tmp_path / "out", golden).result(World())
        assert result["detections"] == 0 and result["ap"] == 0
        assert json.loads((tmp_path / "out" / "bbox.json").read_text()) == []


class Pictures(ms.nn.Cell):
    """Finds the whole picture in every picture: a network as the evaluation calls it."""

    def construct(self, image, size):
        boxes = ms.ops.stack((0 * size[:, 0], 0 * size[:, 0], size[:, 1], size[:, 0]), 1).reshape(-1, 1, 4)
        return boxes, size[:, :1] * 0 + 0.5, (size[:, :1] * 0).astype(ms.int32)


def test_a_network_is_judged_in_both_shapes(tmp_path):
    """Compiled for wide and tall pictures; each image once, with the size of its file as the box."""
    ms.set_context(mode=ms.GRAPH_MODE)
    config = coco_data.settings(coco_data.write(tmp_path), batch_size=2)
    task = Detection(config)
    task.open_to_judge({}, "x")
    judge = task.judge(Pictures())
    judge.step.set_train(False)
    judge.compile()
    result = evaluate(judge, task.batches("val", World()), World())
    assert result["samples"] == result["detections"] == 3
    kept = json.loads((tmp_path / "out" / "results" / "bbox.json").read_text())
    assert {each["image_id"]: each["bbox"] for each in kept} == {
        30: pytest.approx([0, 0, 8, 6]),
        10: pytest.approx([0, 0, 6, 8]),
        20: pytest.approx([0, 0, 8, 6]),
    }
    assert task.told(result).startswith("AP ")


def test_an_evaluation_that_was_left_is_done_again(tmp_path):
    """Protects a run that goes on after SIGTERM from boxes that were found before it; no part stays behind."""
    ms.set_context(mode=ms.GRAPH_MODE)
    task = Detection(coco_data.settings(coco_data.write(tmp_path)))
    task.open_to_judge({}, "x")
    judge = task.judge(Pictures())
    assert evaluate(judge, task.batches("val", World()), World(), lambda batches: batches == 2) is None
    result = evaluate(judge, task.batches("val", World()), World())
    assert result["samples"] == result["detections"] == 3
    assert [path.name for path in (tmp_path / "out" / "results").iterdir()] == ["bbox.json"]


def test_results_of_an_earlier_run_are_set_aside(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "bbox.json").write_text("[]")
    (tmp_path / "last.ckpt").write_text("")
    aside = RunFolder(tmp_path).set_earlier_run_aside()
    assert (aside / "results" / "bbox.json").exists() and not (tmp_path / "results").exists()


def test_classes_of_checkpoints(tmp_path):
    """Numbers mean what they did in training: found by name in a file with other ids, else refused in a line."""
    config = coco_data.settings(coco_data.write(tmp_path))
    task = Detection(config)
    task.open_to_train()
    assert task.record() == {"classes": ["cat", "dog", "tree"], "category_ids": [2, 7, 90]}
    assert task.images == {"train": 2, "val": 3}
    with pytest.raises(UserError, match="checkpoint x knows the classes dog, cat, tree, and the data set has cat, dog"):
        task.adopt({"classes": ["dog", "cat", "tree"]}, "checkpoint x")
    said = copy.deepcopy(content())
    for category in said["categories"]:
        category["id"] = 100 - category["id"]
    for annotation in said["annotations"]:
        annotation["category_id"] = 100 - annotation["category_id"]
    coco_data.write(tmp_path, said)
    other = Detection(config)
    other.open_to_judge(task.record(), "checkpoint x")
    assert other.splits["val"].category_ids().tolist() == [98, 93, 10]
    assert other.splits["val"].objects(1).labels.tolist() == [1]
    with pytest.raises(UserError, match="has no category 'horse', which is one of the classes"):
        Detection(config).open_to_judge({"classes": ["cat", "dog", "horse"]}, "checkpoint x")
    with pytest.raises(UserError, match="has boxes of tree, which the network does not know; name the classes"):
        Detection(config).open_to_judge({"classes": ["cat", "dog"]}, "checkpoint x")
    (tmp_path / "own.txt").write_text("dog\ncat\n")
    own = coco_data.settings(tmp_path, classes=2, class_names="own.txt")
    task = Detection(own)
    task.open_to_judge({"classes": ["cat", "dog"]}, "checkpoint x")
    assert task.names == ["cat", "dog"]
    with pytest.raises(
        UserError, match="checkpoint x knows the classes cat, tree, and the data set has dog, cat; give"
    ):
        Detection(own).open_to_judge({"classes": ["cat", "tree"]}, "checkpoint x")


def test_images_without_anything_to_find(tmp_path):
    """A training by an AP of nothing is refused; images to test on get results, and a line that there is no AP."""
    said = content()
    del said["annotations"]
    config = coco_data.settings(coco_data.write(tmp_path, said))
    task = Detection(config)
    task.open_to_judge({}, "x")
    assert any("there is no AP, which is -1 then" in note for note in task.notes)
    judge = judged(
        task.splits["val"], [{"image_id": 30, "category_id": 2, "bbox": [0, 0, 2, 2], "score": 1}], tmp_path, config
    )
    result = judge.result(World())
    assert result["ap"] == -1 and result["detections"] == 1 and "AP none" in task.told(result)
    said = content()
    coco_data.write(tmp_path, said)
    for annotation in said["annotations"]:
        annotation["iscrowd"] = 1
    (tmp_path / "crowds.json").write_text(json.dumps(said))
    crowds = dataclasses.replace(config.detection, val_annotations="crowds.json")
    with pytest.raises(UserError, match=r"crowds\.json has no box of a class that is no crowd, so that no AP"):
        Detection(dataclasses.replace(config, detection=crowds)).open_to_train()


@pytest.mark.parametrize("head", ["retinanet", "maskrcnn"])
def test_made_up_batches_are_as_real_ones(tmp_path, head):
    """Protects what is measured: columns, types and shapes of a batch, boxes well inside, masks that fill them."""
    config = coco_data.settings(coco_data.write(tmp_path), head)
    task = Detection(config)
    task.open_to_train()
    made, real = task.made_up(1), next(task.batches("train", World()).create_tuple_iterator(output_numpy=True))
    for one, other in zip(made, real, strict=True):
        assert one.dtype == other.dtype and sorted(one.shape) == sorted(other.shape)
    _, _, boxes, labels, *masks = task.made_up(2)
    there = boxes[labels >= 0]
    assert len(there) and (there[:, 2:] - there[:, :2] >= 4).all()
    assert (there >= 0).all() and (there <= [64, 32, 64, 32]).all() and not boxes[labels < 0].any()
    assert all(mask[labels >= 0].any((1, 2)).all() for mask in masks)


def test_check_data_of_a_task(tmp_path, capsys):
    said = content()
    said["annotations"][0]["category_id"] = 4
    config = coco_data.settings(coco_data.write(tmp_path, said))
    with pytest.raises(UserError, match=r"^2 mistake\(s\) in images or annotations, named above"):
        Detection(config).check(("train", "val"), World())
    assert capsys.readouterr().err.count("annotation 5 of image 10: category_id 4 is none") == 2
    with pytest.raises(UserError, match="are not packed"):
        Detection(config).list_files("train")
