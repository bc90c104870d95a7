# SPDX-License-Identifier: Apache-2.0
"""Wishes for exported files: those that contradict each other are refused by name, and every kind has its own name."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from src.config import ModelConfig
from src.deploy.options import Options, check_options
from src.errors import UserError
from src.tasks.class_deployment import ClassDeployment

ROOT = Path(__file__).resolve().parent.parent
INT8 = {"quantize": "int8", "calibration_dir": "images"}


@pytest.mark.parametrize(
    ("formats", "wishes", "named"),
    [
        (["mindir", "onnx"], {"batch_size": None}, ["--dynamic_batch", "--format onnx"]),
        (["onnx"], {"opset": 12}, ["--opset 12", "11, 17, 20"]),
        (["mindir"], {"opset": 17}, ["--opset", "--format"]),
        (["onnx"], {"opset": 11, "dtype": "float16"}, ["--opset 11", "--dtype float16", "17"]),
        (["onnx"], {"opset": 11, **INT8}, ["--opset 11", "--quantize int8", "17"]),
        (["onnx"], {"quantize": "int8"}, ["--calibration_dir"]),
        (["onnx"], {"calibration_dir": "images"}, ["--quantize int8"]),
        (["mindir", "onnx"], INT8, ["--quantize", "--format onnx"]),
        (["onnx"], {"dtype": "float16", **INT8}, ["--quantize int8", "--dtype float16"]),
        (["onnx"], {"key": b"k" * 16}, ["--key", "--format mindir"]),
        (["mindir", "onnx"], {"key": b"k" * 16}, ["--key", "--format mindir"]),
    ],
)
def test_contradictions(formats, wishes, named):
    """Each is one line that names the options, and never shows the key."""
    with pytest.raises(UserError) as refused:
        check_options(formats, Options(**wishes), "CPU", ClassDeployment)
    assert all(name in str(refused.value) for name in named), refused.value
    assert "k" * 16 not in f"{refused.value} {Options(**wishes)}"


def test_what_goes_together():
    """All that a file can be at once."""
    for opset, batch_size, fold, softmax, preprocess in itertools.product(
        (11, 17, 20), (None, 4), *[(False, True)] * 3
    ):
        wishes = {"batch_size": batch_size, "fold": fold, "softmax": softmax, "preprocess": preprocess}
        check_options(["onnx"], Options(opset=opset, **wishes), "CPU", ClassDeployment)
        check_options(["onnx"], Options(dtype="float16", **wishes), "CPU", ClassDeployment)
        check_options(["onnx"], Options(**INT8, **wishes), "CPU", ClassDeployment)
    check_options(
        ["mindir"], Options(dtype="float16", softmax=True, preprocess=True, key=b"k" * 16), "CPU", ClassDeployment
    )
    check_options(["mindir", "onnx", "air"], Options(softmax=True), "Ascend", ClassDeployment)


def test_names():
    """No two kinds of file overwrite each other; the plain one is called as ever."""
    model = ModelConfig("acmix_resnet26")
    assert Options(4).file_name(model, "onnx") == "acmix_resnet26_224_b4.onnx"
    assert Options(None, softmax=True, **INT8).file_name(model, "onnx") == "acmix_resnet26_224_bN_softmax_int8.onnx"
    wide = ModelConfig("san10", image_size=[224, 320])
    assert Options(1).file_name(wide, "mindir") == "san10_224x320_b1.mindir"
    kinds = itertools.product(
        ({"batch_size": None}, {"batch_size": 1}),
        ({}, {"softmax": True}),
        ({}, {"preprocess": True}),
        ({}, {"dtype": "float16"}, INT8),
        ("onnx", "mindir"),
    )
    names = [Options(**a, **b, **c, **d).file_name(model, kind) for a, b, c, d, kind in kinds]
    assert len(names) == len(set(names)) == 48


def export(*words):
    command = [sys.executable, "export.py", "--config", "config/acmix_resnet_digits.yaml", "--checkpoint", "x.ckpt"]
    done = subprocess.run([*command, *words], cwd=ROOT, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--batch_size", "2", "--dynamic_batch"], "--batch_size and --dynamic_batch contradict"),
        (["--dtype", "bfloat16"], "--dtype"),
        (["--key", "too short a key", "--format", "mindir"], "--key has 15 bytes but takes 16, 24 or 32"),
    ],
)
def test_the_command_line(words, named, tmp_path):
    """Exit code 2 and what to do; a key is not shown even where it is wrong."""
    code, said = export(*words, "--output_dir", str(tmp_path))
    assert code == 2 and named in said and "Traceback" not in said and "too short" not in said
    assert list(tmp_path.iterdir()) == []
