# SPDX-License-Identifier: Apache-2.0
"""Classes that count more or less in the loss, and what a network does with each of them."""

import csv

import mindspore as ms
import numpy as np
import pytest
from PIL import Image
from tiny_training import changed

from src.config import LossConfig, load_config
from src.device import World
from src.errors import UserError
from src.tasks import create_task
from src.tasks.per_class import write_per_class
from src.training import trainer
from src.training.evaluate import evaluate_checkpoint
from src.training.losses import class_weights, create_loss

LOGITS = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
LABELS, WEIGHTS = np.array([0, 2, 1, 2, 2]), np.array([0.5, 2, 4], np.float32)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["classes", "shares"])
def test_weights_are_factors_on_the_loss(kind, smoothing):
    """Each image's loss counts by the weight of its class; their mean is over the weights, as PyTorch has it."""
    logs = LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True))
    target = (1 - smoothing) * np.eye(3)[LABELS] + smoothing / 3
    each = -(target * WEIGHTS * logs).sum(1)
    loss = create_loss(LossConfig(label_smoothing=smoothing), WEIGHTS)
    if kind == "classes":
        label, expected = LABELS.astype(np.int32), each.sum() / WEIGHTS[LABELS].sum()
    else:
        label, expected = np.eye(3, dtype=np.float32)[LABELS], each.mean()
    np.testing.assert_allclose(loss(ms.Tensor(LOGITS), ms.Tensor(label)).asnumpy(), expected, rtol=1e-5)


def test_weights_of_classes_judged_by_themselves():
    """With binary cross entropy a weight is a factor on the judgement of its class in every image."""
    target = np.eye(3)[LABELS]
    each = np.log1p(np.exp(LOGITS)) - target * LOGITS
    loss = create_loss(LossConfig("binary_cross_entropy", label_smoothing=0.0), WEIGHTS)
    made = loss(ms.Tensor(LOGITS), ms.Tensor(LABELS.astype(np.int32))).asnumpy()
    np.testing.assert_allclose(made, (each * WEIGHTS).mean(), rtol=1e-5)


def test_which_weights():
    """Given in the order of the folders, they follow the numbers of their classes; balanced ones make up for counts."""
    given = class_weights(LossConfig(class_weights=[1.0, 2.0, 3.0]), None, np.array([2, 0, 1]))
    np.testing.assert_array_equal(given, [2, 3, 1])
    for counts in ([10, 30, 60], [40, 0, 60]):  # EMNIST's letters have a class without images
        numbers, has_images = np.array([1, 2, 0]), np.array(counts) > 0
        balanced = class_weights(LossConfig(class_weights="balanced"), np.array(counts), numbers)
        np.testing.assert_allclose((balanced[numbers] * counts)[has_images], 100 / has_images.sum())
        assert np.isfinite(balanced).all()


@pytest.mark.parametrize("weights", ["balanced", [0.001, 0.001, 1.0]])
def test_training_with_weights(config, weights, monkeypatch):
    """The key reaches the loss: with weight on one class alone, that is all a network learns to say."""
    config = changed(config, loss={"class_weights": weights}, train={"epochs": 2})
    result = trainer.train(create_task(config), World())
    rows = results_by_class(config, f"{config.output_dir}/last.ckpt")
    if weights == "balanced":
        assert result["top1"] > 40
    else:
        assert [float(row["top1"]) for row in rows] == [0, 0, 100]


def results_by_class(config, checkpoint):
    path = f"{config.output_dir}/classes.csv"
    evaluate_checkpoint(create_task(config), checkpoint, World(), path)
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_weights_that_cannot_be(tmp_path):
    """A word that is none, a negative number and a wrong length are refused where the configuration is read."""
    (tmp_path / "c.yaml").write_text("model: {name: resnet26, num_classes: 3}")
    for weights, message in (
        ("balance", r"class_weights is 'balance' but takes .*none or balanced, or a list .*did you mean 'balanced'"),
        ("[1, -1, 1]", r"class_weights is \[1, -1, 1\] but takes"),
        ("[1, 2]", r"class_weights has 2 numbers but takes one for each of the 3 classes"),
    ):
        with pytest.raises(UserError, match=message):
            load_config(tmp_path / "c.yaml", ["--loss.class_weights", weights])


def test_results_by_class(tmp_path):
    """A line for each class, with what it is taken for; what has no image or was never given has empty cells."""
    confusion = np.array([[3, 1, 0, 0], [0, 0, 0, 2], [0, 0, 0, 0], [1, 0, 0, 3]])
    write_per_class(tmp_path / "x.csv", confusion, ["ant", "bee", "a, b", "caf\\xe9"])
    rows = list(csv.reader((tmp_path / "x.csv").read_text().splitlines()))
    assert rows == [
        ["class", "name", "images", "top1", "precision", "taken_for", "times"],
        ["0", "ant", "4", "75.00", "75.00", "bee", "1"],
        ["1", "bee", "2", "0.00", "0.00", "caf\\xe9", "2"],
        ["2", "a, b", "0", "", "", "", ""],
        ["3", "caf\\xe9", "4", "75.00", "60.00", "ant", "1"],
    ]
    assert Image.open(tmp_path / "x.png").width > 600
    with pytest.raises(UserError, match=r"cannot write .*nowhere/x\.csv"):
        write_per_class(tmp_path / "nowhere" / "x.csv", confusion, ["a", "b", "c", "d"])


def test_results_by_class_add_up(config):
    """The lines of an evaluation count every image once, and their accuracies make its top-1."""
    trainer.train(create_task(changed(config, train={"epochs": 1})), World())
    rows = results_by_class(config, f"{config.output_dir}/last.ckpt")
    assert [(row["name"], row["images"]) for row in rows] == [("class0", "5"), ("class1", "5"), ("class2", "5")]
    result, _ = evaluate_checkpoint(create_task(config), f"{config.output_dir}/last.ckpt", World())
    assert np.mean([float(row["top1"]) for row in rows]) == pytest.approx(result["top1"], abs=0.01)
