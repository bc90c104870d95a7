# SPDX-License-Identifier: Apache-2.0
"""One model of each family learns the digits with its own recipe; a ResNet does in tests/test_readme_commands.py."""

from pathlib import Path

import mindspore as ms
import pytest

from src.config import load_config
from src.device import World
from src.tasks import create_task
from src.training import trainer
from src.training.metrics import read_metrics

CONFIGS = Path(__file__).resolve().parent.parent / "config"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return tmp_path_factory.mktemp("data") / "digits"


# Chance is 10 %.
@pytest.mark.parametrize(
    ("family", "epochs", "size", "width"),
    [("swin", 1, (16, 20), 16), ("pvt", 1, (32, 32), 8), ("san", 2, (20, 16), 32)],
)
def test_family_learns(family, epochs, size, width, digits, tmp_path, monkeypatch):
    """The loss falls and held-out digits are told apart after minutes: model, recipe and evaluation fit together."""
    ms.set_context(mode=ms.GRAPH_MODE)
    monkeypatch.setattr(trainer, "plot_curves", lambda *_: None)
    # One block a stage and, where the model allows it, small images or few channels keep it short.
    depths = [1] * (5 if family == "san" else 4)
    words = ["--data_dir", str(digits), "--output_dir", str(tmp_path), "--train.epochs", str(epochs)]
    words += ["--model.options.depths", str(depths), "--model.image_size", str([*size])]
    words += ["--data.resize", str(min(size))]
    words += ["--model.options.width", str(width)]
    result = trainer.train(create_task(load_config(CONFIGS / f"acmix_{family}_digits.yaml", words)), World())
    losses = [line["loss"] for line in read_metrics(tmp_path / "metrics.jsonl") if line["kind"] == "train"]
    assert losses[-1] < 0.8 * losses[0]
    assert result["top1"] > 60
