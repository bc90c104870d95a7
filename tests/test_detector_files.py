# SPDX-License-Identifier: Apache-2.0
"""Detectors as files: with selection and without, the detections of the network, and the AP that they have."""

import collections
import dataclasses
from pathlib import Path

import mindspore as ms
import numpy as np
import onnx
import pytest
from detector_run import IDS, NAMES, write_detector, write_photographs, write_what_is_found
from exported_run import refuse_description
from hypothesis import given, settings
from hypothesis import strategies as st

from src.boxes.suppression import Suppression
from src.config import load_config
from src.data.letterbox import Letterbox, TwoShapes
from src.deploy.card import read_card
from src.deploy.export import export_checkpoint
from src.deploy.options import Options
from src.deploy.proof import WrongExport, difference
from src.deploy.running.evaluate import evaluate_exported
from src.deploy.running.runtime import OnnxModel
from src.device import World
from src.errors import UserError
from src.tasks import create_task
from src.tasks.box_deployment import BoxDeployment
from src.tasks.box_selection import selected
from src.training.evaluate import evaluate_checkpoint


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with wide images of the size of its files, and those in five forms: the config, and the paths by form."""
    folder = tmp_path_factory.mktemp("run")
    write_photographs(folder / "data", [(64, 96)] * 3)
    config, files = write_detector(folder), {}
    write_what_is_found(folder / "best.ckpt", folder / "data")
    for form, kinds, wishes in (
        ("detections", ["mindir", "onnx"], {}),
        ("raw", ["mindir", "onnx"], {"raw": True}),
        ("pixels", ["onnx"], {"batch_size": 2, "preprocess": True, "opset": 17}),
        ("any", ["onnx"], {"batch_size": None, "raw": True, "opset": 20}),
    ):
        for path, card in export_checkpoint(config, folder / "best.ckpt", kinds, **wishes).items():
            assert card["max_difference"] < 2e-5
            files[form, path.suffix] = path
    return config, files


def test_names_and_descriptions(run):
    """A client reads there what goes in, what comes out, how an image gets in, and boxes back."""
    _, files = run
    assert [path.name for path in files.values()] == [
        "retinanet_resnet26_64x96_b1.mindir",
        "retinanet_resnet26_64x96_b1.onnx",
        "retinanet_resnet26_64x96_b1_raw.mindir",
        "retinanet_resnet26_64x96_b1_raw.onnx",
        "retinanet_resnet26_64x96_b2_pixels.onnx",
        "retinanet_resnet26_64x96_bN_raw.onnx",
    ]
    card = read_card(files["detections", ".onnx"])
    assert card["task"] == "detection" and card["labels"] == NAMES and card["category_ids"] == IDS
    assert card["output"] == [
        {"name": "boxes", "shape": [1, 100, 4], "dtype": "float32"},
        {"name": "scores", "shape": [1, 100], "dtype": "float32"},
        {"name": "labels", "shape": [1, 100], "dtype": "int32"},
        {"name": "count", "shape": [1], "dtype": "int32"},
    ]
    spec, selection = card["preprocessing"], card["selection"]
    assert (spec["image_size"], spec["scale"]) == ([64, 96], [64, 96])
    assert "int(f h + 0.5)" in spec["letterbox"] and "x w / w'" in spec["inverse"]
    assert (selection["threshold"], selection["iou"], selection["of_level"], selection["count"]) == (
        0.05,
        0.5,
        1000,
        100,
    )
    raw = read_card(files["any", ".onnx"])
    anchors = sum(raw["selection"]["levels"])
    assert raw["output"] == [
        {"name": "boxes", "shape": ["batch", anchors, 4], "dtype": "float32"},
        {"name": "scores", "shape": ["batch", anchors, 3], "dtype": "float32"},
    ]
    assert read_card(files["pixels", ".onnx"])["input"]["shape"] == [2, 64, 96, 3]


def test_operators(run):
    """Selection is one operator of ONNX for each image; without it none is left that choose, or whose sizes vary."""
    for (form, suffix), path in run[1].items():
        if suffix == ".onnx":
            operators = collections.Counter(node.op_type for node in onnx.load(path).graph.node)
            assert not {"SequenceConstruct", "ConcatFromSequence", "BatchNormalization", "Constant"} & {*operators}
            assert operators["NonMaxSuppression"] == {"detections": 1, "pixels": 2}.get(form, 0)
            if not operators["NonMaxSuppression"]:
                assert not {"TopK", "NonZero", "ScatterElements", "Where"} & {*operators}
                assert form == "any" or not {"ConstantOfShape", "Shape"} & {*operators}
            assert read_card(path)["atc"]["reads"] == (form != "any")


def test_how_many_there_are(run):
    """The last result says how many places are filled, and what is in the others."""
    image = np.random.default_rng(7).standard_normal((1, 3, 64, 96), np.float32)
    boxes, scores, labels, count = OnnxModel(run[1]["detections", ".onnx"]).results(image)
    assert count == (labels >= 0).sum() > 10 and (np.diff(scores) <= 0).all()
    assert (labels[:, count[0] :] == -1).all() and not scores[:, count[0] :].any() and not boxes[:, count[0] :].any()


FAMILIES = {
    "acmix_pvt_tiny": ("{width: 8, depths: [1, 1, 1, 1]}", [64, 96], {"opset": 17}),
    "acmix_swin_tiny": (
        "{patch: 2, width: 16, heads: 2, depths: [1, 1, 1, 1], window: 4}",
        [32, 64],
        {"batch_size": 2},
    ),
    "san10": ("{width: 32, depths: [1, 1, 1, 1, 1]}", [64, 64], {"fold": False, "opset": 20}),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_backbone(tmp_path, name):
    """Wide and square inputs, every opset: the file has the network's detections, of which there are some."""
    options, size, wishes = FAMILIES[name]
    words = ["--model.name", name, "--model.image_size", str(size), "--detection.scale", str(size)]
    config = write_detector(tmp_path, *words, options=options)
    ((path, card),) = export_checkpoint(config, tmp_path / "best.ckpt", ["onnx"], **wishes).items()
    assert card["max_difference"] < 5e-5
    images = np.random.default_rng(3).standard_normal((wishes.get("batch_size", 1), 3, *size), np.float32)
    assert min(OnnxModel(path).results(images)[3]) > 5


@pytest.fixture(scope="module")
def wanted(run):
    """What the checkpoint has."""
    return evaluate_checkpoint(create_task(run[0]), Path(run[0].output_dir, "best.ckpt"), World())[0]


@pytest.mark.parametrize(
    "form",
    [("detections", ".onnx"), ("detections", ".mindir"), ("raw", ".mindir"), ("any", ".onnx")],
)
def test_as_its_checkpoint(run, wanted, form):
    """Where images have the size of the file it has all twelve numbers of the checkpoint."""
    config, files = run
    result, images_per_s = evaluate_exported(config, files[form], World())
    assert result == pytest.approx(wanted, rel=1e-6) and images_per_s > 0
    assert wanted["ap50"] > 0 and wanted["samples"] == 3


def test_images_of_other_sizes(run, tmp_path):
    """A file without selection has the AP of the checkpoint wherever the picture does not fill the input, too; with
    selection in it, boxes overlap in the padding, and results are near."""
    write_photographs(tmp_path / "data", [(50, 96), (64, 70), (128, 192), (30, 40)])
    write_what_is_found(Path(run[0].output_dir, "best.ckpt"), tmp_path / "data")
    config = load_config(Path(run[0].output_dir, "config.yaml"), ["--data_dir", str(tmp_path / "data")])
    config = dataclasses.replace(config, output_dir=str(tmp_path))
    wanted, _ = evaluate_checkpoint(create_task(config), Path(run[0].output_dir, "best.ckpt"), World())
    raw, _ = evaluate_exported(config, run[1]["raw", ".onnx"], World())
    assert raw == pytest.approx(wanted, rel=1e-6)
    inside, _ = evaluate_exported(config, run[1]["detections", ".onnx"], World())
    assert inside["ap50"] == pytest.approx(wanted["ap50"], abs=5) and inside["samples"] == 4
    by_pixels, _ = evaluate_exported(config, run[1]["pixels", ".onnx"], World())
    assert by_pixels["ap50"] == pytest.approx(inside["ap50"], abs=5)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([(64, 96), (96, 64), (200, 200)]))
def test_letterbox(height, width, shape):
    """A picture always fits, keeps its ratio to half a pixel, and has the size of evaluation where that fits."""
    letterbox, usual = (
        Letterbox(shape, (64, 96), [0.4] * 3, [0.2] * 3),
        TwoShapes((64, 96), 32, [0.4] * 3, [0.2] * 3),
    )
    size, wanted = letterbox.size((height, width)), usual.size((height, width))
    assert all(1 <= side <= most for side, most in zip(size, shape))
    factor = min(shape[0] / height, shape[1] / width, 96 / max(height, width), 64 / min(height, width))
    assert all(abs(side - factor * there) <= 0.5 + 1e-9 or side == 1 for side, there in zip(size, (height, width)))
    if all(side <= most for side, most in zip(wanted, shape)):
        assert all(abs(one - two) <= 1 for one, two in zip(size, wanted))


def test_pictures_in_their_letterbox():
    """The picture lies at the top left; around it is the mean colour, which is 0 where it is normalised."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 30, 3), np.uint8)
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    image, size = Letterbox((64, 96), (64, 96), mean, std)(pixels)
    assert image.shape == (3, 64, 96) and size.tolist() == [64, 60] and size.dtype == np.float32
    assert not image[:, :, 60:].any() and image[:, :, :60].std() > 0.5
    raw, _ = Letterbox((64, 96), (64, 96), mean, std, as_pixels=True)(pixels)
    assert raw.shape == (64, 96, 3) and raw.dtype == np.uint8 and raw[0, 95].tolist() == [102, 128, 153]
    np.testing.assert_allclose((raw / 255 - mean) / std, image.transpose(1, 2, 0), atol=0.01)


def candidates(rng, anchors=400, classes=3):
    corners = rng.uniform(0, 80, (anchors, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0, 30, (anchors, 2))], 1).astype(np.float32)
    return boxes, (rng.permutation(anchors * classes) / (anchors * classes)).reshape(anchors, classes).astype(
        np.float32
    )


@pytest.mark.parametrize("seed", range(5))
def test_selection_is_that_of_networks(seed):
    """The function for files without selection keeps the very boxes that the network's own operator does."""
    rng = np.random.default_rng(seed)
    boxes, scores = candidates(rng)
    selection = {"levels": [300, 100], "of_level": 150, "threshold": 0.5, "iou": 0.4, "count": 60}
    found = selected(boxes, scores, selection)
    pairs = []
    for first, last in ((0, 900), (900, 1200)):
        of_level = scores.ravel()[first:last]
        order = first + np.argsort(-of_level, kind="stable")[:150]
        pairs += order[scores.ravel()[order] > 0.5].tolist()
    pairs = np.array(pairs)
    ms.set_context(mode=ms.GRAPH_MODE)
    values, places = Suppression(0.4, 60, 3)(
        ms.Tensor(boxes[pairs // 3][None]),
        ms.Tensor(scores.ravel()[pairs][None]),
        ms.Tensor((pairs % 3)[None].astype(np.int32)),
    )
    kept = pairs[places.asnumpy()[0][values.asnumpy()[0] > 0]]
    assert len(kept) > 30
    np.testing.assert_array_equal(found[0][: len(kept)], boxes[kept // 3])
    np.testing.assert_array_equal(found[1][: len(kept)], scores.ravel()[kept])
    np.testing.assert_array_equal(found[2][: len(kept)], kept % 3)
    assert (found[2][len(kept) :] == -1).all() and not found[1][len(kept) :].any() and len(found[2]) == 60


def test_nothing_is_selected():
    """No score above the threshold: all places are empty."""
    boxes, scores, labels = selected(
        np.zeros((4, 4), np.float32),
        np.zeros((4, 2), np.float32),
        {"levels": [3, 1], "of_level": 10, "threshold": 0.05, "iou": 0.5, "count": 5},
    )
    assert boxes.shape == (5, 4) and not scores.any() and (labels == -1).all()


CARD = {
    "preprocessing": {"image_size": [64, 96]},
    "labels": NAMES,
    "category_ids": IDS,
    "mask_size": 4,
    "selection": {"threshold": 0.05, "iou": 0.5, "of_level": 1000, "count": 3},
}


def results(scores=(0.9, 0.8), labels=(0, 0), masks=0.5):
    """What a network with masks gives: two boxes, and an empty place."""
    boxes = np.float32([[[1, 2, 30, 40], [10, 10, 20, 20], [0, 0, 0, 0]]])
    return [
        boxes,
        np.float32([[*scores, 0]]),
        np.int32([[*labels, -1]]),
        np.full((1, 3, 4, 4), masks, np.float32),
    ]


def off(part, value):
    changed = results()
    changed[part][0, 1] += value
    return changed


@pytest.mark.parametrize(
    ("computed", "expected", "by"),
    [
        (results(), results(), 0),
        (off(0, 9e-4), results(), 9.375e-5),  # of pixels by a tenth of 96
        (off(1, -5e-5), results(), 5e-5),
        (off(2, 1), results(), 0.75),  # a box of another label: one is missing, and one too many
        (off(3, 0.01), results(), 0.01),
        (results(labels=(0, -1)), results(), 0.75),
        # Of near scores either may come first, and one just above the threshold may be missing.
        ([part[:, [1, 0, 2]] for part in results((0.8, 0.8))], results((0.8, 0.8)), 0),
        (results((0.9, 0), (0, -1)), results((0.9, 0.05001)), 1e-5),
    ],
)
def test_a_difference(computed, expected, by):
    """Each box is compared with its own, masks too; what is missing counts by its score above the threshold."""
    deployment = BoxDeployment(CARD)
    count = (computed[2] >= 0).sum(1).astype(np.int32)
    assert deployment.difference("detections", [*computed, count], expected) == pytest.approx(by, abs=2e-6)
    assert np.isnan(deployment.difference("detections", [*computed, count + 1], expected))
    runtime = dataclasses.make_dataclass("Runtime", ["results"])(lambda images: [*computed, count])
    compared = "x.onnx", runtime, np.zeros((1, 3, 64, 96)), expected, Options(), deployment
    if by <= 1e-4:
        difference(*compared)
    else:
        with pytest.raises(
            WrongExport, match=r"differs from the network by .* of a score, or of a tenth of the longer"
        ):
            difference(*compared)


def test_masks_are_results_of_their_own():
    """A network with masks gives them between labels and count; it cannot be cut before its selection."""
    deployment = BoxDeployment(CARD)
    assert {**deployment.results("detections", 2)} == {
        "boxes": [2, 3, 4],
        "scores": [2, 3],
        "labels": [2, 3],
        "masks": [2, 3, 4, 4],
        "count": [2],
    }
    assert list(deployment.results("detections", 2))[3:] == ["masks", "count"] and deployment.outputs == ("detections",)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"category_ids": [1, 2]}, "category_ids are not one number for each of the 3 labels"),
        ({"category_ids": [1, 2, "x"]}, "category_ids are not"),
        ({"mask_size": None}, "mask_size is missing or no number"),
        ({"selection": None}, "selection takes count, of_level, threshold and iou"),
        ({"selection": {"threshold": 2, "iou": 0.5, "count": 1, "of_level": 1}}, "selection takes"),
        ({"scale": [64]}, r"preprocessing cannot be used"),
        ({"scale": [0, 9]}, r"preprocessing cannot be used \(scale takes two sides in pixels\)"),
        ({"in_channels": 1}, "preprocessing"),
        ({"mask_size": 28}, "output.name is boxes, scores, labels, count but takes detections or raw"),
        ({"output": []}, "output.name is"),
        ({"output": [1]}, "output is no dict, or list of them"),
        ({"task": "classification"}, "preprocessing cannot be used"),
    ],
)
def test_descriptions_that_cannot_be_used(run, change, named):
    """Each is named before anything is computed by it."""
    refuse_description(run[1]["detections", ".onnx"], change, named)


def test_what_is_refused(run, tmp_path):
    """What boxes make no sense of, other classes and images, and any number of images where each has a selection."""
    config, files = run
    checkpoint = Path(config.output_dir, "best.ckpt")
    config = dataclasses.replace(config, output_dir=str(tmp_path))
    int8 = {"quantize": "int8", "calibration_dir": "x"}
    for wishes, named in (
        ({"dtype": "float16"}, "float16 is not for files of this task: coordinates of boxes have more digits"),
        (int8, "int8 is not for files of this task"),
        ({"softmax": True}, "--softmax gives probabilities, and files of this task give detections or raw"),
        ({"batch_size": None}, "--dynamic_batch does not work with this network"),
    ):
        with pytest.raises(UserError, match=named):
            export_checkpoint(config, checkpoint, ["onnx"], **wishes)
    assert list(tmp_path.iterdir()) == []
    other = dataclasses.replace(config, detection=dataclasses.replace(config.detection, scale=[64.0, 64.0]))
    with pytest.raises(UserError, match=r"exported for images of scale \[64.*\] but --config has \[64"):
        evaluate_exported(other, files["raw", ".onnx"], World())
