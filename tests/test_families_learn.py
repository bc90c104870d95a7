# SPDX-License-Identifier: Apache-2.0
"""One model of each family learns the digits with its own recipe; a ResNet does in tests/test_readme_commands.py."""

from pathlib import Path

import mindspore as ms
import pytest

from src.config import load_config
from src.device import World
from src.training.metrics import read_metrics
from src.training.trainer import train

CONFIGS = Path(__file__).resolve().parent.parent / "config"


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return tmp_path_factory.mktemp("data") / "digits"


# Chance is 10 %.
@pytest.mark.parametrize(("family", "epochs", "size"), [("swin", 2, 16), ("pvt", 2, 32), ("san", 3, 16)])
def test_family_learns(family, epochs, size, digits, tmp_path):
    """The loss falls and held-out digits are told apart after minutes: model, recipe and evaluation fit together."""
    ms.set_context(mode=ms.GRAPH_MODE)
    # One block a stage and, where the strides allow it, small images keep it short.
    depths = [1] * (5 if family == "san" else 4)
    words = ["--data_dir", str(digits), "--output_dir", str(tmp_path), "--train.epochs", str(epochs)]
    words += ["--model.options.depths", str(depths), "--model.image_size", str(size), "--data.resize", str(size)]
    result = train(load_config(CONFIGS / f"acmix_{family}_digits.yaml", words), World())
    losses = [line["loss"] for line in read_metrics(tmp_path / "metrics.jsonl") if line["kind"] == "train"]
    assert losses[-1] < 0.7 * losses[0]
    assert result["top1"] > 60
