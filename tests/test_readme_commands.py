# SPDX-License-Identifier: Apache-2.0
"""The commands of the README that a CPU and the digits are enough for, run as printed, in the order of the page."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from shell import ROOT, settings
from test_readme import ENGLISH, commands

from src.data.digits import write_digits

# What a command with such a word takes, and why it is not run here.
ELSEWHERE = {
    r"/path/to/|data/(imagenet|cifar|fashion)|--train_dir|\.pth|^pip |output_dir O": "files that only a user has",
    r"_ascend|_gpu|run_infer_(310|cpp|lite)|--device_target (GPU|Ascend)": "a device, or MindSpore Lite",
    r"run_tests\.sh|^source ": "runs these tests, or is of the shell alone",
    r"benchmark|profile_model|reproduce": "takes many minutes; what it does has tests of its own",
}


def runs_here(command):
    return not any(re.search(words, command) for words in ELSEWHERE)


def shrink(path, text, less):
    whole = path.read_text()
    assert text in whole
    path.write_text(whole.replace(text, less))


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the project whose quick start has a smaller network, smaller maps in it, fewer epochs and digits."""
    folder = tmp_path_factory.mktemp("clone") / "acmix"
    left = shutil.ignore_patterns(".*", "data", "outputs", "logs", "tests", "docs", "__pycache__", "rank_*")
    shutil.copytree(ROOT, folder, ignore=left)
    # Only what comes without `source .venv/bin/activate`; `src/data` goes with "data" above.
    shutil.copytree(ROOT / "src", folder / "src", dirs_exist_ok=True)
    shrink(folder / "config" / "recipe" / "digits.yaml", "epochs: 6\n", "epochs: 4\n")
    shrink(folder / "config" / "recipe" / "digits.yaml", "batch_size: 32\n", "batch_size: 16\n")
    # A network that has learned this little is unsure of many images.
    shrink(folder / "src" / "deploy" / "quantize.py", "LEAST_AGREEMENT = 90", "LEAST_AGREEMENT = 60")
    shrink(folder / "config" / "acmix_resnet_digits.yaml", "stem: small", "stem: imagenet")
    shrink(folder / "config" / "acmix_resnet_digits.yaml", "    width: 16 ", "    depths: [1, 1, 1, 1]\n    width: 8 ")
    shrink(folder / "config" / "recipe" / "scenes.yaml", "epochs: 50\n", "epochs: 1\n")
    shrink(folder / "config" / "recipe" / "scenes.yaml", "head_channels: 64", "head_channels: 8")
    shrink(folder / "config" / "recipe" / "scenes.yaml", "{width: 16}", "{width: 8, depths: [1, 1, 1, 1]}")
    shrink(
        folder / "src" / "data" / "scenes.py", '"training": 800, "validation": 200', '"training": 48, "validation": 4'
    )
    shrink(folder / "config" / "recipe" / "scenes_detection.yaml", "epochs: 60\n", "epochs: 1\n")
    shrink(folder / "config" / "recipe" / "scenes_detection.yaml", "head_channels: 48", "head_channels: 8")
    shrink(folder / "config" / "recipe" / "scenes_detection.yaml", "{width: 16}", "{width: 8, depths: [1, 1, 1, 1]}")
    # A network that has learned this little finds nothing of which it is surer.
    shrink(folder / "src" / "tasks" / "box_results.py", "THRESHOLD = 0.3", "THRESHOLD = 0.0")
    write_digits(folder / "data" / "digits")
    for split, count in (("train", 30), ("val", 10)):
        for kind in (folder / "data" / "digits" / split).iterdir():
            for image in sorted(kind.iterdir())[count:]:
                image.unlink()
    return folder


@pytest.mark.parametrize("command", [line for line in commands(ENGLISH) if runs_here(line)])
def test_command_runs(command, clone):
    """Protects whoever types a command of the README: it ends well and leaves what the page says."""
    bin = Path(sys.executable).parent
    environment = settings(ACMIX_PYTHON=sys.executable, PATH=f"{bin}:{os.environ['PATH']}")
    done = subprocess.run(["bash", "-c", command], cwd=clone, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for written in re.findall(r"--output (\S+)", command):
        assert (clone / written).stat().st_size > 0


def test_quick_start_of_segmentation_leaves_a_picture(clone):
    """Protects its last step: a mask and an overlay of the same image, by the exported file."""
    masks = clone / "outputs" / "fpn_acmix_resnet_scenes" / "masks"
    assert [path.name for path in masks.glob("*.png")] == [path.name for path in masks.glob("overlays/*.png")] != []


def test_quick_start_of_detection_leaves_a_picture(clone):
    """Protects its last step: boxes on an image, by the exported file."""
    run = clone / "outputs" / "retinanet_acmix_resnet_scenes"
    assert (
        len(list((run / "pictures").glob("*.png"))) == 1 and (run / "retinanet_acmix_resnet26_128_b1.mindir").exists()
    )


def test_quick_start_has_learned(clone):
    """Protects the quick start: minutes of training tell digits apart (chance is 10 %), and all its files are there."""
    run = clone / "outputs" / "acmix_resnet_digits"
    # The first of the trainings that the page starts in this folder: each later one puts it aside.
    first = min(run.rglob("metrics.jsonl"), key=os.path.getmtime)
    lines = [json.loads(line) for line in first.read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert losses[-1] < 0.7 * losses[0]
    assert max(line["top1"] for line in lines if line["kind"] == "eval") > 60
    names = ("best.ckpt", "last.ckpt", "curves.png", "config.yaml")
    assert all((run / name).is_file() for name in (*names, "acmix_resnet26_32_b1.onnx", "acmix_resnet26_32_b1.mindir"))
