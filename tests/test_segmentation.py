# SPDX-License-Identifier: Apache-2.0
"""The task of segmentation: its judge by the reference's answers, what is refused, and what begins a segmenter."""

import csv
import json
import re
import shutil
from pathlib import Path

import cv2
import mindspore as ms
import numpy as np
import pytest
from golden_network import GOLDEN
from hypothesis import given
from hypothesis import strategies as st
from mindspore import nn
from PIL import Image
from scene_training import scene_config
from shell import ROOT
from tiny_training import changed

from src.config import load_config
from src.data.scenes import NAMES
from src.device import World
from src.errors import UserError
from src.models import create_model
from src.tasks import config_of, create_task
from src.tasks.pixel_answers import SlidingWindows, WholeImages
from src.tasks.pixel_judge import PixelJudge, confusion_of, scores
from src.tasks.pretrained_backbone import load_backbone
from src.training.checkpoint import save_weights
from src.training.evaluate import evaluate, evaluate_checkpoint

OPERATORS = GOLDEN / "downstream" / "operators"


@pytest.mark.parametrize("kind", ["plain", "reduced"])
def test_scores_are_the_reference_s(kind):
    """mIoU, mAcc, aAcc and those of each class equal mmsegmentation's, an absent class left out of the means."""
    arrays, case = np.load(f"{OPERATORS}.npz"), json.loads(OPERATORS.with_suffix(".json").read_text())["cases"]["miou"]
    label, best = arrays["miou.label"], arrays["miou.pred"].astype(np.int64)
    if kind == "reduced":
        label, best = np.where((label == 0) | (label == 255), 255, label - 1), np.maximum(best - 1, 0)
    confusion = confusion_of(label.astype(np.int64), best, 12, 255)
    for got, name in zip(scores(confusion), ("iou", "acc")):
        np.testing.assert_allclose(got / 100, arrays[f"miou.{kind}.{name}"], rtol=1e-7)
    means = {"mIoU": np.nanmean(scores(confusion)[0]), "mAcc": np.nanmean(scores(confusion)[1])}
    means["aAcc"] = 100 * confusion.diagonal().sum() / confusion.sum()
    assert {name: value / 100 for name, value in means.items()} == {
        name: pytest.approx(case[kind][name], rel=1e-6) for name in means
    }


class Colours(nn.Cell):
    """Takes the logits out of the image itself: (1, 3, H, W)."""

    def construct(self, image):
        return image


def test_pixels_are_judged_at_their_own_size():
    """Labels keep the size of the file, whatever that of the network's image; sums over images, not means of means."""
    ms.set_context(mode=ms.GRAPH_MODE)
    rng, batches, expected = np.random.default_rng(0), [], np.zeros((3, 3), np.int64)
    for height, width in ((8, 12), (16, 8)):
        label = rng.choice([0, 1, 2, 255], (height, width)).astype(np.int32)
        best = np.repeat(np.repeat(rng.integers(0, 3, (height // 4, width // 4)), 4, 0), 4, 1)
        batches.append((np.eye(3, dtype=np.float32)[best].transpose(2, 0, 1)[None], label[None]))
        for of_label, of_best in zip(label.ravel(), best.ravel()):
            if of_label != 255:
                expected[of_label, of_best] += 1
    judge = PixelJudge(WholeImages(Colours()), ["a", "b", "c"], 255)

    class Batches:
        children = ()

        def create_tuple_iterator(self, num_epochs):
            return ((ms.Tensor(image), ms.Tensor(label)) for image, label in batches)

    result = evaluate(judge, Batches(), World())
    np.testing.assert_array_equal(judge.confusion, expected)
    right = expected.diagonal()
    assert result == {
        "miou": pytest.approx(100 * np.mean(right / (expected.sum(0) + expected.sum(1) - right))),
        "macc": pytest.approx(100 * np.mean(right / expected.sum(1))),
        "aacc": pytest.approx(100 * right.sum() / expected.sum()),
        "trivial": pytest.approx(100 * expected.sum(1).max() / expected.sum() / 3),
        "samples": 2,
        "sizes": 2,
    }


def test_several_scales_and_flips_are_judged_together():
    """Protects from logits that are averaged in place of probabilities, and from answers that stay flipped."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, (12, 16)).astype(np.int32)
    images = [3 * rng.standard_normal((1, 3, *size)).astype(np.float32) for size in ((12, 16), (6, 8))]
    # What the network says of a pixel depends on its column, so a flipped image is another.
    ramp = np.linspace(-1, 1, 8)[None, :]

    def logits(image):
        return image + cv2.resize(ramp, image.shape[:-3:-1]).astype(np.float32)

    def answer(image):
        return logits(image.asnumpy()[0])

    answer.step = answer.sizes = ()
    judge = PixelJudge(answer, ["a", "b", "c"], 255, flip=True)
    judge.begin()
    found = judge.add(*map(ms.Tensor, images), ms.Tensor(label[None]))
    probabilities = np.zeros((3, 12, 16))
    for image in images:
        for one in (logits(image[0]), logits(image[0, ..., ::-1])[..., ::-1]):
            whole = np.stack([cv2.resize(plane, (16, 12)) for plane in one])
            probabilities += np.exp(whole) / np.exp(whole).sum(0)
    np.testing.assert_array_equal(found, probabilities.argmax(0))
    assert judge.confusion.sum() == label.size


@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    window=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    seed=st.integers(0, 9),
)
def test_windows_of_a_network_that_sees_pixels_alone_are_the_whole(size, window, seed):
    """Each pixel is answered, and by its own window: where a network looks at nothing else, windows change nothing."""

    def square(image):
        return ms.Tensor(image.asnumpy() ** 2)

    image = np.random.default_rng(seed).standard_normal((1, 3, *size)).astype(np.float32)
    stride = tuple((side + 1) // 2 for side in window)
    answers = SlidingWindows(square, window, stride)(ms.Tensor(image))
    np.testing.assert_allclose(answers, image[0] ** 2, rtol=1e-6)


def test_a_segmenter_is_judged_by_windows(small):
    """By command: a stride, two scales, flips; one size is compiled, and it is another judgement than of the whole."""
    task = create_task(
        changed(small, segmentation={"window_stride": 40, "eval_scales": [0.75, 1.5], "eval_flip": True})
    )
    network = task.build()
    task.open_to_train()
    judge = task.judge(network)
    judge.compile()
    result = evaluate(judge, task.batches("val", World()), World())
    assert (result["samples"], result["sizes"]) == (3, 1) and "1 image size compiled" in task.told(result)


@pytest.fixture
def small(scenes, tmp_path):
    """The `Config` of a training of two epochs of four steps."""
    return scene_config("fpn", scenes, tmp_path)


def test_a_checkpoint_has_a_table_of_classes(small, tmp_path):
    """A line for each class, by name; mIoU is the mean of those that there are."""
    ms.set_context(mode=ms.GRAPH_MODE)
    task, table = create_task(small), tmp_path / "classes.csv"
    task.open_to_train()
    save_weights(tmp_path / "a.ckpt", task.build(), task.record())
    result, _ = evaluate_checkpoint(create_task(small), tmp_path / "a.ckpt", World(), table)
    rows = list(csv.DictReader(table.open()))
    assert [row["name"] for row in rows] == [*NAMES]
    there = [float(row["iou"]) for row in rows if row["iou"]]
    assert np.mean(there) == pytest.approx(result["miou"], abs=0.01) and result["samples"] == 3


def test_what_cannot_be_segmented_is_refused(small, tmp_path):
    """A head of no task, data of the other, other names than a checkpoint's, labels out of range: one line each."""
    path = tmp_path / "other.yaml"
    for text, named in (
        ("model: {name: resnet26, head: fpn}", "model.head belongs to task segmentation but task is classification"),
        ("{model: {name: resnet26}, segmentation: {divisor: 8}}", "segmentation.divisor belongs to task segmentation"),
        (
            "{task: segmentation, model: {name: resnet26, head: fpn, in_channels: 1}, data: {mean: [0.5], std: [0.5]}}",
            "model.in_channels takes 3 where task is segmentation",
        ),
        ("{task: segmentation, model: {name: resnet26}}", "model.head takes fpn or upernet where task is segmentation"),
        (
            "{task: segmentation, model: {name: resnet26, head: fpn}, data: {mixup: 0.2}}",
            "data.mixup belongs to task classification but task is segmentation",
        ),
        (
            "{task: segmentation, model: {name: resnet26, head: fpn}, data: {name: digits}}",
            "data.name is digits but segmentation takes image_folder or scenes",
        ),
        (
            "{task: segmentation, model: {name: resnet26, head: fpn, image_size: [64, 96]}, "
            "segmentation: {window_stride: [64, 97]}}",
            r"window_stride is \[64, 97\] but takes from 1 to the sides of model.image_size, 64 x 96",
        ),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=named):
            load_config(path)
    task = create_task(small)
    with pytest.raises(UserError, match=r"^checkpoint x knows the classes ant, bee.*segmentation\.class_names says"):
        task.open_to_judge({"classes": ["ant", "bee"]}, "checkpoint x")
    task = create_task(changed(small, model={"num_classes": 9}, segmentation={"class_names": ""}))
    task.open_to_train()
    with pytest.raises(UserError, match=r"has the value \d+ but the largest class is 9 .*mend the mask"):
        evaluate(PixelJudge(WholeImages(Colours()), range(9), 255), task.batches("val", World()), World())


def test_check_data_names_every_pair_that_cannot_be_used(small, scenes, tmp_path, capsys):
    """All are named before a training, not the first in its midst: a truncated image, a mask of another size."""
    folder = shutil.copytree(scenes, tmp_path / "scenes")
    image, mask = folder / "images" / "training" / "00002.jpg", folder / "annotations" / "validation" / "00001.png"
    image.write_bytes(image.read_bytes()[:500])
    Image.new("L", (3, 2)).save(mask)
    task = create_task(changed(small, data={"data_dir": str(folder)}))
    with pytest.raises(UserError, match=r"^2 image\(s\) or mask\(s\) cannot be used, named above"):
        task.check(("train", "val"), World())
    said = capsys.readouterr().err
    assert f"image {image} is truncated" in said and f"mask {mask} has 3 x 2 pixels" in said
    create_task(small).check(("train", "val"), World())


def test_a_classifier_begins_a_segmenter(small, tmp_path):
    """What was loaded, is new and is left over is counted; a checkpoint of another backbone is refused."""
    task = create_task(small)
    task.open_to_train()
    options = small.model.options
    classifier = create_model("acmix_resnet26", num_classes=4, image_size=64, **options)
    save_weights(tmp_path / "a.ckpt", classifier, {})
    network = task.build()
    loaded = task.load_pretrained(network, tmp_path / "a.ckpt")
    assert re.fullmatch(
        r"began with (\d+) weights of .*a\.ckpt; new here: \d+ \(head\..* and \d+ more\); "
        r"left over there: 2 \(backbone\.fc\.weight, backbone\.fc\.bias\)",
        loaded.line,
    )
    assert {*loaded.loaded, *loaded.new} == {p.name for p in network.get_parameters() if not p.name.endswith("draws")}
    assert all(name.startswith("head.") for name in loaded.new) and len(loaded.left_over) == 2
    theirs = {parameter.name: parameter.asnumpy() for parameter in classifier.get_parameters()}
    for name, value in ((p.name, p.asnumpy()) for p in network.backbone.get_parameters()):
        if not name.endswith("draws"):
            np.testing.assert_array_equal(value, theirs[name.removeprefix("backbone.")], err_msg=name)
    save_weights(tmp_path / "b.ckpt", task.build(), {})
    assert "new here: none; left over there: none" in task.load_pretrained(network, tmp_path / "b.ckpt").line
    other = create_task(changed(small, model={"num_classes": 3})).build()
    again = load_backbone(other, tmp_path / "b.ckpt")
    assert again.new == again.left_over == ["head.classifier.linear.weight", "head.classifier.linear.bias"]
    save_weights(tmp_path / "c.ckpt", create_model("acmix_pvt_tiny", image_size=32, width=8), {})
    with pytest.raises(UserError, match="give a checkpoint of this backbone"):
        task.load_pretrained(network, tmp_path / "c.ckpt")
    save_weights(tmp_path / "d.ckpt", create_model("acmix_resnet26", image_size=64, **{**options, "width": 16}), {})
    with pytest.raises(UserError, match=r"backbone\.stem.* is \(16, 3, 7, 7\) there, \(8, 3, 7, 7\) here"):
        task.load_pretrained(network, tmp_path / "d.ckpt")


def test_networks_are_named_as_their_configs_are():
    """Protects measuring another network than that of the recipe: HEAD_BACKBONE means the same everywhere."""
    paths = list(Path(ROOT, "config").glob("*_ade20k.yaml"))
    for path in paths:
        named, config = config_of(path.stem.removesuffix("_ade20k")), load_config(path)
        wanted = (config.task, config.model.name, config.model.head, config.model.num_classes)
        assert (named.task, named.model.name, named.model.head, named.model.num_classes) == wanted
    assert len(paths) == 10 and config_of("acmix_san10").task == "classification"
