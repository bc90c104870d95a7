# SPDX-License-Identifier: Apache-2.0
"""The worked examples of docs/architecture.md: a reader who follows them gets something that works."""

import importlib
import re
import sys

import mindspore as ms
import numpy as np
import pytest
from PIL import Image
from shell import ROOT
from tiny_training import changed

from src.config import DataConfig
from src.data import dataset
from src.deploy.export import export_checkpoint
from src.deploy.running.images import find_images
from src.deploy.running.predict import open_predictor
from src.device import World
from src.errors import UserError
from src.models import registry
from src.tasks import TASKS, create_task
from src.training import trainer
from src.training.metrics import read_metrics

TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """The examples in their order as one module; what they registered is taken back."""
    models = dict(registry._MODELS)
    folder = tmp_path_factory.mktemp("examples")
    blocks = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)
    # MindSpore imports the module of a Cell and reads its file.
    (folder / "examples.py").write_text("\n\n".join(blocks), encoding="utf-8")
    sys.path.insert(0, str(folder))
    yield importlib.import_module("examples")
    sys.path.remove(str(folder))
    del sys.modules["examples"]
    registry._MODELS.clear()
    registry._MODELS.update(models)


@pytest.mark.parametrize("name", ["network", "tower"])
def test_networks_of_the_examples_compute(name, examples):
    """Protects the examples of a form of attention and of a backbone: they build and compute in graph mode."""
    ms.set_context(mode=ms.GRAPH_MODE)
    logits = getattr(examples, name).set_train(False)(ms.Tensor(np.ones((2, 3, 32, 32), np.float32)))
    assert logits.shape == (2, 10) and np.isfinite(logits.asnumpy()).all()


def test_row_attention_attends_rows(examples):
    """Protects the example's claim beside a literal softmax over each row."""
    rng = np.random.default_rng(0)
    qkv = rng.standard_normal((2, 12, 3, 5)).astype(np.float32)
    out = examples.RowAttention(4, 2)(ms.Tensor(qkv)).asnumpy()
    query, key, value = qkv.reshape(2, 3, 2, 2, 3, 5).transpose(1, 0, 2, 3, 4, 5)
    logits = np.einsum("bndhx,bndhy->bnhxy", query, key) / np.sqrt(2)
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = np.einsum("bnhxy,bndhy->bndhx", weights, value).reshape(2, 4, 3, 5)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)


def test_backbone_keeps_its_promises(examples):
    """Protects the example of a backbone: its maps are those that its feature_info announces."""
    tower = registry.create_model("acmix_tower", image_size=32, width=8, features_only=True)
    maps = tower(ms.Tensor(np.ones((1, 3, 32, 32), np.float32)))
    for feature, x in zip(tower.feature_info, maps):
        assert x.shape == (1, feature.channels, 32 // feature.stride, 32 // feature.stride)
    assert len(examples.tower.layers()) == 5


def test_dataset_of_the_example_gives_batches(examples, tmp_path, monkeypatch):
    """Protects the example of a dataset: with its split in `list_split`'s place the pipeline makes batches of it."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 20, 20, 3), np.uint8)
    np.savez(tmp_path / "val.npz", image=pixels, label=np.arange(6) % 2, classes=np.array(["cat", "dog"]))
    monkeypatch.setattr(dataset, "list_split", lambda data, split: examples.open_arrays(tmp_path, split))
    batches = dataset.create_dataset(DataConfig(batch_size=4), 16, 3, "val")
    shapes = [(image.shape, label.asnumpy().tolist()) for image, label in dataset.iterate(batches)]
    assert shapes == [((4, 3, 16, 16), [0, 1, 0, 1]), ((2, 3, 16, 16), [0, 1])]


def test_the_table_of_folders_is_whole():
    """Protects the table: every folder of src is in it."""
    folders = {path.name for path in (ROOT / "src").iterdir() if path.is_dir() and not path.name.startswith("_")}
    assert folders <= set(re.findall(r"`src/(\w+)`", TEXT))


def test_a_task_of_our_own_goes_outside(examples, config, tmp_path, monkeypatch, capsys):
    """Protects `src/deploy` from knowing a task: it exports, quantises and runs what it has never heard of."""
    monkeypatch.setitem(TASKS, config.task, examples.HalvesOutside)
    config = changed(config, train={"epochs": 20}, data={"batch_size": 8, "mean": [0.0], "std": [1.0]})
    trainer.train(create_task(config), World())
    pixels = np.random.default_rng(1).integers(0, 256, (12, 8, 8), np.uint8)
    for number, image in enumerate(pixels):
        image[:, 4 * (number % 2) :][:, :4] //= 2
        Image.fromarray(image).save(tmp_path / f"{number:02d}.png")
    checkpoint, wishes = f"{config.output_dir}/best.ckpt", {"quantize": "int8", "calibration_dir": str(tmp_path)}
    files = {**export_checkpoint(config, checkpoint, ["onnx", "mindir"], 5, preprocess=True)}
    for path, card in files.items():
        assert card["output"] == {"name": "logits", "shape": [5, 2], "dtype": "float32"}
        assert card["labels"] == ["right", "left"]
        predictor = open_predictor(path)
        with predictor.deployment.open_results(tmp_path, None) as write:
            for name, answer in predictor.answers(predictor.read(find_images(tmp_path))):
                write(name, answer)
        told = capsys.readouterr().out.splitlines()
        assert [line.split("the ")[1] for line in told] == ["right half", "left half"] * 6
    with pytest.raises(UserError, match="files of this task give logits; leave it out"):
        export_checkpoint(config, checkpoint, ["onnx"], softmax=True)
    monkeypatch.setattr(examples.HalvesOutside, "judge_file", refuse)
    ((_, card),) = export_checkpoint(config, checkpoint, ["onnx"], **wishes).items()
    assert card["int8"]["images"] == 12 and card["int8"]["agreement"] >= 90


def refuse(*_):
    raise UserError("no images")


def test_a_task_of_thirty_lines_is_trained(examples, config):
    """Protects the trainer from knowing classification: it trains, resumes and reports what it has never heard of."""
    config = changed(config, train={"epochs": 3}, data={"batch_size": 8})
    first = trainer.train(examples.Halves(config), World())
    longer = changed(config, train={"epochs": 20})
    result = trainer.train(examples.Halves(longer), World(), resume="auto")
    assert (first["epoch"], result["epoch"], result["step"]) == (3, 20, 160)
    assert result["best"] >= result["right"] > 90 and result["samples"] == 64
    lines = [line for line in read_metrics(f"{config.output_dir}/metrics.jsonl") if line["kind"] == "eval"]
    assert [line["epoch"] for line in lines] == [*range(1, 21)] and lines[-1]["right"] == result["right"]
