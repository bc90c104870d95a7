# SPDX-License-Identifier: Apache-2.0
"""Segmenters as files: every head and backbone, every form, and the mIoU that they have by windows."""

import collections
import dataclasses
import json
from pathlib import Path

import cv2
import mindspore as ms
import numpy as np
import onnx
import pytest
from exported_run import opencv_logits, refuse_description
from segmenter_run import COLOURS, NAMES, colours, write_pairs, write_segmenter

from src.config import load_config
from src.data.class_colours import from_text
from src.data.pixel_transforms import normalised
from src.deploy.card import card_path, read_card
from src.deploy.export import export_checkpoint
from src.deploy.options import Options
from src.deploy.proof import WrongExport, difference
from src.deploy.running.evaluate import evaluate_exported
from src.deploy.running.runtime import CheckpointModel, OnnxModel
from src.device import World
from src.errors import UserError
from src.tasks import create_task, deployment_of
from src.tasks.pixel_answers import best_class, planes
from src.tasks.pixel_deployment import PixelDeployment
from src.tasks.pixel_judge import confusion_of, scores
from src.training.deployment import Runner
from src.training.evaluate import evaluate_checkpoint


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with images of the size of its files, and those in four forms: the config, and the paths by form."""
    folder = tmp_path_factory.mktemp("run")
    write_pairs(folder / "data", [(32, 64)] * 3)
    config = write_segmenter(folder, "--data_dir", str(folder / "data"))
    checkpoint, files = folder / "best.ckpt", {}
    for form, kinds, wishes in (
        ("logits", ["mindir", "onnx"], {}),
        ("classes", ["onnx"], {"batch_size": 2, "argmax": True, "preprocess": True}),
        ("classes", ["mindir"], {"argmax": True}),
        ("float16", ["onnx"], {"batch_size": None, "dtype": "float16"}),
    ):
        for path, card in export_checkpoint(config, checkpoint, kinds, **wishes).items():
            assert card["max_difference"] < (1e-5 if form != "float16" else 1e-2)
            files[form, path.suffix] = path
    return config, files


def test_names_and_descriptions(run):
    """A client reads there what goes in and comes out, and what the numbers of classes mean."""
    _, files = run
    names = [path.name for path in files.values()]
    assert names == [
        "fpn_resnet26_32x64_b1.mindir",
        "fpn_resnet26_32x64_b1.onnx",
        "fpn_resnet26_32x64_b2_pixels_argmax.onnx",
        "fpn_resnet26_32x64_b1_argmax.mindir",
        "fpn_resnet26_32x64_bN_fp16.onnx",
    ]
    card = read_card(files["classes", ".onnx"])
    assert card["task"] == "segmentation" and card["model"] == "fpn_resnet26" and card["labels"] == NAMES
    assert card["input"] == {"name": "image", "shape": [2, 32, 64, 3], "dtype": "uint8", "layout": "NHWC"}
    assert card["output"] == {"name": "classes", "shape": [2, 32, 64], "dtype": "int32"}
    assert (card["ignore_label"], card["reduce_zero_label"]) == (255, True)
    assert card["colours"][1] == COLOURS[1] and [*map(from_text, card["colours"])] == colours().tolist()
    assert card["preprocessing"] == {
        "image_size": [32, 64],
        "stride": [21, 42],
        "scale": [32, 64],
        "divisor": 32,
        "orientation": "ignore",
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.25, 0.3],
        "in_channels": 3,
    }
    assert read_card(files["logits", ".onnx"])["output"]["shape"] == [1, 4, 32, 64]
    assert read_card(files["float16", ".onnx"])["output"]["shape"] == ["batch", 4, 32, 64]


FAMILIES = {
    "fpn_acmix_resnet26": ("{width: 8, depths: [1, 1, 1, 1]}", [40, 64], {"opset": 17}),
    "fpn_acmix_pvt_tiny": ("{width: 8, depths: [1, 1, 1, 1]}", [32, 64], {"batch_size": None}),
    "upernet_acmix_swin_tiny": (
        "{patch: 2, width: 16, heads: 2, depths: [1, 1, 1, 1], window: 4}",
        [32, 48],
        {"opset": 20, "batch_size": 2},
    ),
    "upernet_san10": ("{width: 32, depths: [1, 1, 1, 1, 1]}", [48, 32], {"fold": False}),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_head_on_every_backbone(tmp_path, name):
    """Sizes that no network divides by itself, all in products and convolutions, also as another runtime reads it."""
    options, size, wishes = FAMILIES[name]
    head, backbone = name.split("_", 1)
    words = ["--model.name", backbone, "--model.head", head, "--model.image_size", str(size)]
    config = write_segmenter(tmp_path, *words, options=options)
    ((path, card),) = export_checkpoint(config, tmp_path / "best.ckpt", ["onnx"], **wishes).items()
    assert card["max_difference"] < 1e-5 and card["atc"]["reads"] == (wishes.get("opset") != 20)
    graph = onnx.load(path).graph
    operators = collections.Counter(node.op_type for node in graph.node)
    assert not {"Resize", "Dropout", "Constant", "Identity"} & {*operators}
    if backbone.endswith("resnet26"):
        assert not operators["BatchNormalization"]
    assert not [tensor.name for tensor in graph.initializer if "auxiliary" in tensor.name]
    images = np.random.default_rng(3).standard_normal((wishes.get("batch_size", 1) or 2, 3, *size)).astype(np.float32)
    expected = OnnxModel(path).results(images)[0]
    assert expected.shape == (len(images), 4, *size)
    assert np.ptp(expected, axis=(2, 3)).max() > 0.05 * np.abs(expected).max()
    if wishes.get("batch_size", 1):
        np.testing.assert_allclose(opencv_logits(path, images), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "form", [("logits", ".onnx"), ("logits", ".mindir"), ("classes", ".onnx"), ("classes", ".mindir")]
)
def test_as_its_checkpoint(run, form):
    """Where an image has the size of the file, the file has the mIoU, mAcc and aAcc of the checkpoint."""
    config, files = run
    wanted, _ = evaluate_checkpoint(create_task(config), Path(config.output_dir, "best.ckpt"), World())
    result, images_per_s = evaluate_exported(config, files[form], World())
    assert result == pytest.approx(wanted, rel=1e-6) and images_per_s > 0
    assert 0 < wanted["miou"] < 99 and wanted["samples"] == 3


@pytest.fixture(scope="module")
def larger(run, tmp_path_factory):
    """The same run with images larger and smaller than its files."""
    folder = tmp_path_factory.mktemp("larger")
    write_pairs(folder, [(90, 150), (60, 40), (20, 150)])
    words = ["--data_dir", str(folder), "--segmentation.scale", "[48, 96]", "--segmentation.divisor", "8"]
    config = load_config(Path(run[0].output_dir, "config.yaml"), words)
    return config


def with_scale(path, folder, scale, divisor):
    """A copy of a file that says of itself that it was exported with this scale."""
    copy = folder / path.name
    copy.write_bytes(path.read_bytes())
    card = json.loads(card_path(path).read_text())
    card["preprocessing"].update(scale=scale, divisor=divisor)
    card_path(copy).write_text(json.dumps(card))
    return copy


def literal_logits(logits_of, path):
    """Logits of an image that was scaled by OpenCV into 48 x 96, its sides multiples of 8, as evaluation does it; by
    windows of 32 x 64 from 21 x 42 pixels to the next, one after the other."""
    pixels = cv2.imread(str(path))[..., ::-1]
    factor = min(96 / max(pixels.shape[:2]), 48 / min(pixels.shape[:2]))
    height, width = (-(-int(side * factor + 0.5) // 8) * 8 for side in pixels.shape[:2])
    image = normalised(cv2.resize(pixels, (width, height)), [0.4, 0.5, 0.6], [0.2, 0.25, 0.3])
    total, counts = np.zeros((4, max(height, 32), max(width, 64))), np.zeros((max(height, 32), max(width, 64)))
    padded = np.zeros((3, *counts.shape), np.float32)
    padded[:, :height, :width] = image
    bottom = 32
    while True:
        right = 64
        while True:
            part = slice(bottom - 32, bottom), slice(right - 64, right)
            total[:, part[0], part[1]] += logits_of(padded[None, :, part[0], part[1]])[0]
            counts[part] += 1
            if right == padded.shape[2]:
                break
            right = min(right + 42, padded.shape[2])
        if bottom == padded.shape[1]:
            break
        bottom = min(bottom + 21, padded.shape[1])
    return (total / counts)[:, :height, :width].astype(np.float32), pixels.shape[:2]


@pytest.mark.parametrize("form", [("logits", ".onnx"), ("logits", ".mindir"), ("float16", ".onnx")])
def test_windows(run, larger, tmp_path, form):
    """Larger and smaller images are judged by windows over the scaled image, as a literal loop does it."""
    folder, confusion = Path(larger.data.data_dir), np.zeros((4, 4), np.int64)
    ms.set_context(mode=ms.GRAPH_MODE)
    model = CheckpointModel(Path(run[0].output_dir, "best.ckpt"), create_task(larger).build())
    for path in sorted((folder / "images" / "validation").iterdir()):
        logits, size = literal_logits(lambda images: model.results(images)[0], path)
        found = np.stack([cv2.resize(plane, size[::-1]) for plane in logits]).argmax(0)
        values = cv2.imread(str(folder / "annotations" / "validation" / path.name), cv2.IMREAD_UNCHANGED)
        label = np.where(values == 0, 255, values.astype(int) - 1)
        confusion += confusion_of(label, found, 4, 255)
    path = with_scale(run[1][form], tmp_path, [48.0, 96.0], 8)
    result, _ = evaluate_exported(larger, path, World())
    tolerance = 1e-6 if form[0] == "logits" else 0.02
    assert result["miou"] == pytest.approx(np.nanmean(scores(confusion)[0]), rel=tolerance)
    assert result["aacc"] == pytest.approx(100 * confusion.diagonal().sum() / confusion.sum(), rel=tolerance)


def test_classes_by_windows(run):
    """Of a file of classes, a pixel has the class by the window in whose middle it lies."""
    card = read_card(run[1]["classes", ".onnx"])
    deployment, given = deployment_of(card), []

    def results(images):
        given.extend(images)
        classes = np.stack([np.full((32, 64), number % 4, np.int32) for number in range(len(given))][-len(images) :])
        return [classes]

    image = np.random.default_rng(0).integers(0, 256, (32, 100, 3), np.uint8)
    result = deployment.logits(Runner(results, 2), normalised(image, [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]))
    np.testing.assert_array_equal(given, [image[:, :64], image[:, 36:]])  # pixels again, as they were
    assert result.shape == (4, 32, 100) and set(np.unique(result)) == {0, 1}
    np.testing.assert_array_equal(result.argmax(0)[16, [0, 40, 60, 99]], [0, 0, 1, 1])


def test_the_largest_at_another_size():
    """Class by class, what OpenCV makes of all logits at once; the first of equal ones."""
    logits = np.random.default_rng(0).standard_normal((5, 9, 7)).astype(np.float32)
    logits[3] = logits[1]
    expected = cv2.resize(logits.transpose(1, 2, 0), (20, 31), interpolation=cv2.INTER_LINEAR).argmax(2)
    found = best_class(planes(logits, (31, 20)))
    np.testing.assert_array_equal(found, expected)
    assert 3 not in found and 1 in expected


def test_int8(run, tmp_path):
    """mIoU before and after; what averages pixels is no weight, and keeps all its bits."""
    config = dataclasses.replace(run[0], output_dir=str(tmp_path))
    wishes = {"quantize": "int8", "calibration_dir": config.data.data_dir + "/images"}
    ((path, card),) = export_checkpoint(config, Path(run[0].output_dir, "best.ckpt"), ["onnx"], **wishes).items()
    assert card["int8"]["measure"] == "mIoU" and card["int8"]["images"] == 3 and card["int8"]["agreement"] >= 90
    before, _ = evaluate_exported(config, run[1]["logits", ".onnx"], World())
    assert card["int8"]["before"] == pytest.approx(before["miou"], rel=1e-4)
    after, _ = evaluate_exported(config, path, World())
    assert card["int8"]["after"] == pytest.approx(after["miou"])
    graph = onnx.load(path).graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type in ("Conv", "MatMul"):
            is_int8 = makers.get(node.input[1]) == makers.get(node.input[0]) == "DequantizeLinear"
            assert is_int8 == (node.op_type == "Conv"), node.name
    assert sum(node.op_type == "MatMul" for node in graph.node) > 4


def test_int8_by_likeness(run, tmp_path, capsys):
    """Without evaluation images the share of pixels of the same class counts; the line says why."""
    config = dataclasses.replace(run[0], output_dir=str(tmp_path))
    images = Path(config.data.data_dir, "images")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, data_dir=str(tmp_path / "nothing")))
    wishes = {"quantize": "int8", "calibration_dir": str(images)}
    ((_, card),) = export_checkpoint(config, Path(run[0].output_dir, "best.ckpt"), ["onnx"], **wishes).items()
    assert {*card["int8"]} == {"images", "agreement"} and card["int8"]["images"] == 3
    assert 90 <= card["int8"]["agreement"] < 100
    assert "int8 is not judged by evaluation images: cannot" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("found", "allowed"), [([[0, 1]], True), ([[2, 1]], False), ([[0, 3]], False), ([[-1, 1]], False)]
)
def test_a_class_that_is_not_the_best(found, allowed):
    """Classes are compared by what their logits lack, as rounding may choose either of two; none that there is not."""
    expected = np.array([[[5, -2]], [[4.9999, 7]], [[-1, 0]]], np.float32).transpose(1, 0, 2)  # (1, 3, 2)
    deployment = PixelDeployment({"preprocessing": {}, "labels": []})
    runtime = dataclasses.make_dataclass("Runtime", ["results"])(lambda images: [np.array(found, np.int32)])
    if allowed:
        assert difference("x.onnx", runtime, np.zeros(1), [expected], Options(argmax=True), deployment) == 0
        other = dataclasses.make_dataclass("Runtime", ["results"])(lambda images: [np.array([[1, 1]], np.int32)])
        assert difference("x.onnx", other, np.zeros(1), [expected], Options(argmax=True), deployment) == pytest.approx(
            1e-4 / 7, rel=0.1
        )
    else:
        with pytest.raises(WrongExport):
            difference("x.onnx", runtime, np.zeros(1), [expected], Options(argmax=True), deployment)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"colours": ["#000000"]}, "colours are not one of #rrggbb for each of the 4 labels"),
        ({"colours": [[0, 0, 0]] * 4}, "colours are not"),
        ({"reduce_zero_label": None}, "reduce_zero_label is missing or no bool"),
        ({"task": "poetry"}, "task is poetry, which is none"),
        ({"task": "classification"}, "preprocessing cannot be used"),
        ({"stride": [40, 40]}, r"preprocessing cannot be used \(a stride of \(40, 40\) does not cover"),
        ({"stride": "x"}, "preprocessing cannot be used"),
        ({"scale": [0, 9]}, "preprocessing cannot be used"),
        ({"divisor": 0}, "preprocessing cannot be used"),
        ({"labels": ["a"]}, "colours are not one of"),
    ],
)
def test_descriptions_that_cannot_be_used(run, change, named):
    """Each is named before anything is computed by it."""
    refuse_description(run[1]["logits", ".onnx"], change, named)


def test_what_was_not_exported_for_these_images(run, tmp_path):
    """mIoU of other classes, of images scaled otherwise, or by another task's configuration, would mean nothing."""
    config, files = run
    path = files["logits", ".onnx"]
    other = dataclasses.replace(config, segmentation=dataclasses.replace(config.segmentation, scale=[64.0, 64.0]))
    with pytest.raises(UserError, match=r"exported for images of scale \[32.*\] but --config has \[64"):
        evaluate_exported(other, path, World())
    (tmp_path / "c.yaml").write_text("model: {name: resnet26}")
    with pytest.raises(UserError, match="is of task segmentation but --config of classification"):
        evaluate_exported(load_config(tmp_path / "c.yaml"), path, World())
    with pytest.raises(UserError, match="--softmax gives probabilities, and files of this task give logits or classes"):
        export_checkpoint(config, Path(config.output_dir, "best.ckpt"), ["onnx"], softmax=True)
    assert PixelDeployment.outputs == ("logits", "classes")
