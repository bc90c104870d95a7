# SPDX-License-Identifier: Apache-2.0
"""Exported files compute what the network computes and carry what is needed to use them; nothing else is written."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import onnx
import pytest
from exported_run import CLASSES, opencv_logits, write_images, write_run

from src.config import load_config
from src.data.classes import Classes
from src.deploy import export as export_module
from src.deploy.card import card_path, read_card
from src.deploy.export import export_checkpoint
from src.deploy.options import Options
from src.deploy.proof import WrongExport, difference
from src.deploy.running.runtime import CheckpointModel, MindirModel, OnnxModel
from src.errors import UserError
from src.tasks.class_deployment import ClassDeployment, class_labels
from src.training.checkpoint import save_weights
from src.training.network import build_network

BATCH = 3


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run exported in both formats: its config; the folder's name is one MindSpore itself would not export to."""
    folder = tmp_path_factory.mktemp("a run") / "modèle 1"
    folder.mkdir()
    folder.chmod(0o755)
    write_images(folder / "images")
    config = write_run(folder, "--data_dir", str(folder / "images"))
    files = export_checkpoint(config, folder / "best.ckpt", ["mindir", "onnx"], BATCH)
    assert [path.name for path in files] == [f"acmix_resnet26_32_b{BATCH}.mindir", f"acmix_resnet26_32_b{BATCH}.onnx"]
    assert all(card["max_difference"] < 1e-5 for card in files.values())
    return config


def exported(config, kind):
    return Path(config.output_dir) / f"acmix_resnet26_32_b{BATCH}.{kind}"


def test_files_compute_what_the_network_does(run):
    """The exported files agree with the network on inputs other than the one they were tried on, in OpenCV too."""
    images = np.random.default_rng(7).standard_normal((BATCH, 1, 32, 32)).astype(np.float32)
    expected = CheckpointModel(Path(run.output_dir, "best.ckpt"), build_network(run.model)).results(images)[0]
    # Else the logits would prove little: those of a fresh network are the same for every image.
    assert np.ptp(expected, axis=0).max() > 0.05 * np.abs(expected).max()
    for model in (OnnxModel(exported(run, "onnx")), MindirModel(exported(run, "mindir"))):
        np.testing.assert_allclose(model.results(images)[0], expected, atol=1e-5 * np.abs(expected).max())
    by_opencv = opencv_logits(exported(run, "onnx"), images)
    np.testing.assert_allclose(by_opencv, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "options",
    [
        "--model.options.paths convolution --model.options.shift slice",
        "--model.options.paths convolution --model.options.stem imagenet --model.image_size 50",
        "--model.name sasa_resnet26 --model.options.kernel_att 3 --model.image_size 29",
        "--model.name resnet26 --model.drop_path_rate 0.2",
    ],
    ids=["slice", "stem", "attention", "plain"],
)
def test_every_kind_of_network_exports_to_onnx(tmp_path, options):
    """All kinds of blocks and stems, and sizes that no block divides, pass the exporter and its own check."""
    config = write_run(tmp_path, "--data.resize", "64", *options.split())
    ((path, card),) = export_checkpoint(config, tmp_path / "best.ckpt", ["onnx"]).items()
    assert card["max_difference"] < 1e-5
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert not operators & {"BatchNormalization", "Dropout", "Constant", "Cast", "Identity"}


def test_onnx_file_is_clean(run):
    """The ONNX file shows named ends and the network's own parameters, and no debris of exporting or training."""
    model = onnx.load(exported(run, "onnx"))
    onnx.checker.check_model(model, full_check=True)
    assert "Constant" not in {node.op_type for node in model.graph.node}
    assert not any(name[0].isdigit() for node in model.graph.node for name in (node.name, *node.input, *node.output))
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == ["logits"]
    tensors = [tensor.SerializeToString().replace(tensor.name.encode(), b"") for tensor in model.graph.initializer]
    assert len(tensors) == len(set(tensors))
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert properties["model"] == "acmix_resnet26" and json.loads(properties["labels"]) == CLASSES
    assert json.loads(properties["mean"]) == [0.3] and json.loads(properties["preprocessing"])["resize"] == 36
    assert properties["version"] == f"MindSpore {ms.__version__}" and not model.doc_string


@pytest.mark.parametrize("kind", ["mindir", "onnx"])
def test_description(run, kind):
    """The description says what the file takes, gives and comes from; MindSpore's file modes do not stay."""
    path = exported(run, kind)
    card = read_card(path)
    assert card["model"] == "acmix_resnet26" and card["format"] == kind
    assert card["input"]["shape"] == [BATCH, 1, 32, 32] and card["input"]["layout"] == "NCHW"
    assert card["output"]["shape"] == [BATCH, 10]
    assert (card["input"]["name"], card["output"]["name"]) == ("image", "logits")
    assert card["input"]["dtype"] == card["output"]["dtype"] == "float32"
    assert card["folded"] is True and card["encrypted"] is False and card["tolerance"] == 1e-4
    assert card["labels"] == card["classes"] == CLASSES
    assert card["preprocessing"] == {
        "image_size": [32, 32],
        "resize": 36,
        "interpolation": "bilinear",
        "orientation": "ignore",
        "mean": [0.3],
        "std": [0.35],
        "in_channels": 1,
    }
    checkpoint = Path(run.output_dir, "best.ckpt").read_bytes()
    assert card["checkpoint"] == {"file": "best.ckpt", "sha256": hashlib.sha256(checkpoint).hexdigest()}
    assert card["mindspore"] == ms.__version__ and card["max_difference"] < 1e-5
    for file in (path, card_path(path)):
        assert file.stat().st_mode == Path(run.output_dir, "config.yaml").stat().st_mode
    assert path.parent.stat().st_mode & 0o777 == 0o755


def test_labels(run, tmp_path):
    """Labels are the training's own, else those of the evaluation folder, else numbers; a wrong folder is refused."""
    data = dataclasses.replace(run.data, data_dir=str(tmp_path))
    elsewhere = dataclasses.replace(run, data=data)
    assert class_labels(run, {"classes": ["x", "y"]}) == Classes(["x", "y"], ["x", "y"])
    assert class_labels(run, {"classes": ["x", "y"], "class_names": ["ix", "y"]}).names == ["ix", "y"]
    assert class_labels(run, {}) == Classes(CLASSES, CLASSES)
    assert class_labels(elsewhere, {}) == Classes(None, [str(number) for number in range(10)])
    (tmp_path / "class_names.txt").write_text("x\tan ex\nz\ta zed\n")
    assert class_labels(elsewhere, {"classes": ["x", "y"]}) == Classes(["x", "y"], ["an ex", "y"])
    shutil.copytree(Path(run.data.data_dir, "val", CLASSES[0]), tmp_path / "val" / "only")
    with pytest.raises(UserError, match=r"1 classes but the network has 10 and does not say"):
        class_labels(elsewhere, {})


@pytest.mark.parametrize("kind", ["mindir", "onnx"])
def test_a_file_that_computes_something_else_is_deleted(run, tmp_path, monkeypatch, kind):
    """A file that differs from the network leaves nothing, not even what was there by halves."""
    config = dataclasses.replace(run, model=dataclasses.replace(run.model, name="resnet26"), output_dir=str(tmp_path))
    network = build_network(config.model)
    save_weights(tmp_path / "best.ckpt", network, {})
    before = sorted(path.name for path in tmp_path.iterdir())
    wrong = SimpleNamespace(results=lambda images: [np.full((len(images), 10), 1e3, np.float32)])
    monkeypatch.setattr(export_module, {"mindir": "MindirModel", "onnx": "OnnxModel"}[kind], lambda *path: wrong)
    with pytest.raises(WrongExport, match=rf"exported resnet26_32_b1\.{kind} differs from the network by .* deleted"):
        export_checkpoint(config, tmp_path / "best.ckpt", [kind])
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize(("wrong", "is_right"), [(1e-4, True), (3e-4, False), (np.nan, False)])
@pytest.mark.parametrize("batch_size", [5, None])
def test_a_difference(wrong, is_right, batch_size):
    """Up to 1e-4 of the largest logit is rounding; one image of one batch is enough to be wrong, and so is NaN."""
    images, expected = np.zeros((5, 1, 8, 8), np.float32), np.tile(np.float32([1, -2]), (5, 1))

    def results(images):
        computed = expected[: len(images)].copy()
        computed[4:, 1] += np.float32(wrong)
        return [computed]

    deployment = ClassDeployment({"preprocessing": {}, "labels": ["a", "b"]})
    compared = ("x.onnx", SimpleNamespace(results=results), images, [expected], Options(batch_size), deployment)
    if is_right:
        assert difference(*compared) == pytest.approx(5e-5, rel=1e-2)
    else:
        with pytest.raises(WrongExport):
            difference(*compared)


@pytest.mark.parametrize(
    ("change", "formats", "batch", "message"),
    [
        ([], ["onnz"], 1, r"--format 'onnz' is unknown; .* did you mean 'onnx'\?"),
        ([], ["onnx", ""], 1, "--format '' is unknown"),
        ([], ["onnx", "air"], 1, "AIR is made by MindSpore on an Ascend device, and this is CPU"),
        ([], ["onnx"], 0, "--batch_size is 0 but takes at least 1"),
        (["--model.num_classes", "11"], ["onnx"], 1, "does not fit this model: different: fc.weight"),
        (["--model.image_size", "4"], ["onnx"], 1, "image_size must be at least 8"),
        (["--output_dir", "FOLDER/best.ckpt/x"], ["onnx"], 1, "cannot create output folder .*Not a directory"),
    ],
    ids=["typo", "nothing", "air", "batch", "classes", "size", "folder"],
)
def test_refused_exports(run, tmp_path, change, formats, batch, message):
    """What cannot be exported ends as one line before anything is written."""
    folder = Path(run.output_dir)
    change = [word.replace("FOLDER", str(folder)) for word in change]
    config = load_config(folder / "config.yaml", ["--output_dir", str(tmp_path), *change])
    with pytest.raises(UserError, match=message):
        export_checkpoint(config, folder / "best.ckpt", formats, batch)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_network_is_not_exported(tmp_path):
    """A checkpoint whose logits are not finite is refused: comparing with it would prove nothing."""
    config = write_run(tmp_path, "--model.name", "resnet26")
    network = build_network(config.model)
    network.fc.weight.set_data(ms.Tensor(np.full(network.fc.weight.shape, 3e38, np.float32)))
    save_weights(tmp_path / "best.ckpt", network, {})
    with pytest.raises(UserError, match=r"best\.ckpt gives numbers that are not finite"):
        export_checkpoint(config, tmp_path / "best.ckpt", ["onnx"])
