# SPDX-License-Identifier: Apache-2.0
"""What a user sees of the commands: mistakes end in one line and exit code 2."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DIGITS = "config/acmix_resnet_digits.yaml"


def run(*words):
    return subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=300)


def refused(done, *named):
    assert done.returncode == 2, done.stderr
    # MindSpore pipes /proc/cpuinfo through sed and may close the pipe first, which sed then reports.
    lines = [line for line in done.stderr.splitlines() if not line.startswith("sed: ")]
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    for word in named:
        assert word in done.stderr
    return True


@pytest.mark.parametrize("target", ["GPU", "Ascend"])
@pytest.mark.parametrize("script", [("train.py",), ("eval.py", "--checkpoint", "x.ckpt")])
def test_a_device_that_is_not_there(script, target, tmp_path):
    """The device is named, and the one to use instead; MindSpore's own pages of reasons stay away."""
    import mindspore as ms

    if ms.hal.is_available(target):
        pytest.skip(f"this machine has a {target}")
    done = run(*script, "--config", DIGITS, "--device_target", target, "--output_dir", tmp_path / "run")
    assert refused(done, target, "--device_target CPU")


def test_missing_data_folder(tmp_path):
    """Named before anything is made of it."""
    config = ["--config", DIGITS, "--data.name", "image_folder", "--data_dir", tmp_path / "nothing"]
    assert refused(run("train.py", *config, "--output_dir", tmp_path / "run"), str(tmp_path / "nothing"))


def test_an_image_size_that_cannot_work(tmp_path):
    """The model says which sizes it takes; no training has begun."""
    words = ["--model.image_size", "16", "--data.resize", "16", "--model.options.stem", "imagenet"]
    done = run("train.py", "--config", DIGITS, *words, "--data_dir", tmp_path / "digits", "--output_dir", tmp_path)
    assert refused(done, "image_size", "32")
