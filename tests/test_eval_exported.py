# SPDX-License-Identifier: Apache-2.0
"""Exported files are judged as their checkpoint is: same images, same measure, whatever the file takes and gives."""

import dataclasses
import json
import sys

import numpy as np
import pytest
from tiny_exported import MEAN, SPEC, STD, linear_weights, write_onnx
from tiny_training import changed, tiny_config

import eval as eval_script
from src.data.dataset import create_dataset
from src.deploy.export import export_checkpoint
from src.deploy.running.evaluate import evaluate_exported
from src.device import World
from src.errors import UserError
from src.tasks import create_task
from src.training.checkpoint import save_weights
from src.training.evaluate import evaluate_checkpoint
from src.training.network import build_network


@pytest.fixture
def linear(tmp_path, image_folder, tiny_model):
    """The configuration that the files of `tiny_exported` were "trained" with."""
    return changed(tiny_config(image_folder, tmp_path), data={"mean": [MEAN], "std": [STD], "batch_size": 4})


def expected(config):
    """Top-1, top-5 and loss of the linear layer, in NumPy."""
    weights, bias = linear_weights()
    ((image, label),) = (
        (image.asnumpy(), label.asnumpy())
        for image, label in create_dataset(
            dataclasses.replace(config.data, batch_size=15), 8, 1, "val"
        ).create_tuple_iterator(num_epochs=1)
    )
    logits = image.reshape(15, -1) @ weights + bias
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    right = logits.argmax(axis=1) == label
    assert 0.3 < right.mean() < 1  # else many a mistake would make no difference
    return 100 * right.mean(), -logs[np.arange(15), label].mean()


@pytest.mark.parametrize(
    ("options", "tolerance"),
    [
        ({}, 1e-5),
        ({"batch": "batch"}, 1e-5),
        ({"dtype": "uint8", "batch": 15}, 1e-5),
        ({"softmax": True}, 1e-5),
        ({"dtype": "float16", "softmax": True}, 1e-2),
        ({"change_card": lambda card: {**card, "labels": ["0", "1", "2"], "classes": None}}, 1e-5),
    ],
    ids=["float32", "any batch", "pixels", "probabilities", "float16", "classes without names"],
)
def test_every_form_is_judged_alike(linear, tmp_path, options, tolerance):
    """Pixels, probabilities, float16, any number of images: the accuracy is that of the function in the file."""
    top1, loss = expected(linear)
    result, images_per_s = evaluate_exported(linear, write_onnx(tmp_path / "x.onnx", **options), World())
    assert result == {
        "top1": pytest.approx(top1),
        "top5": 100,
        "loss": pytest.approx(loss, rel=tolerance),
        "samples": 15,
    }
    assert images_per_s > 0


def test_as_its_checkpoint(config, tmp_path, monkeypatch, capsys):
    """For both exported files of a checkpoint `eval.py --model` prints the figures of the checkpoint."""
    network = build_network(config.model)
    rng = np.random.default_rng(0)
    for parameter in network.get_parameters():
        if parameter.ndim > 1:
            parameter.set_data(type(parameter.data)(rng.standard_normal(parameter.shape).astype(np.float32)))
    save_weights(tmp_path / "best.ckpt", network, {})
    config = changed(config, output_dir=str(tmp_path / "exported"))
    files = export_checkpoint(config, tmp_path / "best.ckpt", ["mindir", "onnx"])
    wanted, _ = evaluate_checkpoint(create_task(config), tmp_path / "best.ckpt", World())
    monkeypatch.setattr(eval_script, "survive_crashes", lambda message: None)
    monkeypatch.setattr("src.device.setup_device", lambda device: World())
    for path in files:
        monkeypatch.setattr(sys, "argv", ["eval.py", "--config", str(tmp_path / "tiny.yaml"), "--model", str(path)])
        eval_script.main.__wrapped__()
        result = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert result == {**wanted, "loss": pytest.approx(wanted["loss"], rel=1e-5)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"labels": ["0", "1", "2"]},
            "class 'class0' of .*val is none of model .*, which has 0, 1, 2; give the folder",
        ),
        (
            {"labels": ["class0", "class1", "cat"]},
            "class 'class2' of .*val is none of model .*, which has class0, class1",
        ),
        ({"preprocessing": {**SPEC, "resize": 9}}, "images of resize 9 but --config has 8"),
    ],
    ids=["digits", "other", "preprocessing"],
)
def test_what_was_not_exported_for_these_images(linear, tmp_path, change, message):
    """Top-1 against the labels of other classes, or of images prepared otherwise, would mean nothing."""
    path = write_onnx(tmp_path / "x.onnx", change_card=lambda card: {**card, **change})
    with pytest.raises(UserError, match=message):
        evaluate_exported(linear, path, World())
