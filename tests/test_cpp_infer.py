# SPDX-License-Identifier: Apache-2.0
"""cpp_infer, compiled and run with MindSpore Lite 2.0.0: the same classes as onnxruntime, errors of one line."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
from client_images import SPEC, prepared
from lite_model import classified, write_images, write_model
from shell import ROOT, SCRIPTS, bash

from src.deploy.card import card_path

CONVERTED = ROOT / "tests" / "golden" / "lite_tiny.mindir"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The compiled program; without OpenCV, so that it is the same on every machine."""
    setup = bash(SCRIPTS / "setup_lite.sh", ACMIX_PYTHON=sys.executable)
    missing = [f"there is no {tool}" for tool in ("cmake", "g++") if not shutil.which(tool)]
    if setup.returncode:
        missing += setup.stderr.splitlines()[-1:]
    if missing:
        pytest.skip("; ".join(missing))
    build = tmp_path_factory.mktemp("build")
    lite = ROOT / ".lite" / "mindspore_lite"
    options = [f"-DLITE_HOME={lite}", "-DCMAKE_DISABLE_FIND_PACKAGE_OpenCV=ON", "-DCMAKE_BUILD_TYPE=None"]
    options += ["-DCMAKE_COMPILE_WARNING_AS_ERROR=ON"]
    # Its MindSpore brings a nlohmann/json.hpp.
    settings = {**os.environ, "ACMIX_PYTHON": sys.executable}
    for command in (["cmake", "-S", ROOT / "cpp_infer", "-B", build, *options], ["cmake", "--build", build, "-j2"]):
        done = subprocess.run(command, env=settings, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    settings = {**os.environ, "LD_LIBRARY_PATH": str(lite / "lib"), "GLOG_v": "4"}

    def run(*words):
        command = [build / "acmix_infer", *map(str, words)]
        return subprocess.run(command, env=settings, capture_output=True, text=True, timeout=60)

    return run


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """tiny.onnx with its description, and the same converted as tiny_lite.mindir."""
    folder = tmp_path_factory.mktemp("model")
    write_model(folder / "tiny.onnx")
    shutil.copy(CONVERTED, folder / "tiny_lite.mindir")
    return folder / "tiny.onnx"


def words(model):
    return ["--model", model.with_name("tiny_lite.mindir"), "--card", card_path(model)]


def refused(done, *parts):
    """Exit code 2, no output, one last line that says `parts`."""
    assert (done.returncode, done.stdout) == (2, ""), done
    line = done.stderr.splitlines()[-1]
    assert line.startswith("error: ")
    for part in parts:
        assert part in line


def test_classifies_as_infer_does(program, model, tmp_path):
    """Three prepared images through a model of two at once: the labels and probabilities of onnxruntime."""
    images = write_images(tmp_path)
    spec = json.loads(card_path(model).read_text())["preprocessing"]
    inputs = [prepared(path, spec) for path in images]
    files = [path.with_suffix(".bin") for path in images]
    for image, file in zip(inputs, files):
        image.tofile(file)
    done = program(*words(model), "--topk", 3, *files)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    for line, file, best in zip(lines, files, classified(model, inputs, 3), strict=True):
        assert line["image"] == str(file)
        assert [entry["label"] for entry in line["topk"]] == [label for label, _ in best]
        assert [entry["probability"] for entry in line["topk"]] == pytest.approx([p for _, p in best], abs=1e-5)


def test_probabilities_stay_as_they_are(program, model, tmp_path):
    """A file with softmax inside gives probabilities: no second softmax."""
    card = json.loads(card_path(model).read_text())
    card["output"]["name"] = "probabilities"
    (tmp_path / "card.json").write_text(json.dumps(card))
    image = np.random.default_rng(0).standard_normal((3, 8, 8)).astype(np.float32)
    image.tofile(tmp_path / "image.bin")
    converted = model.with_name("tiny_lite.mindir")
    done = program("--model", converted, "--card", tmp_path / "card.json", "--topk", 1, tmp_path / "image.bin")
    (best,) = json.loads(done.stdout)["topk"]
    (logits,) = onnxruntime.InferenceSession(str(model)).run(None, {"image": np.stack([image] * 2)})
    assert best["probability"] == pytest.approx(logits[0].max(), rel=1e-5)


def test_what_cannot_be_used_is_named(program, model, tmp_path):
    """Arguments, card, model and image: each mistake is one line and exit code 2."""
    right = tmp_path / "right.bin"
    np.zeros((3, 8, 8), np.float32).tofile(right)
    (tmp_path / "small.bin").write_bytes(b"1234")
    (tmp_path / "text.mindir").write_text("no model")
    refused(program(), "--model")
    refused(program(*words(model)), "image")
    refused(program(*words(model), "--topk", "0", right), "--topk", "'0'")
    refused(program(*words(model), "--topk", "3x", right), "--topk", "'3x'")
    refused(program(*words(model), "--colour", right), "--colour")
    refused(program(*words(model), right, "--topk"), "--topk takes a value")
    refused(program(*words(model), "--device_target", "GPU", right), "GPU")
    refused(program(*words(model), tmp_path / "missing.bin"), "missing.bin")
    refused(program(*words(model), tmp_path), str(tmp_path))
    refused(program(*words(model), tmp_path / "small.bin"), "small.bin", "4 bytes", "768")
    refused(program(*words(model), tmp_path / "photo.png"), "photo.png", "OpenCV")
    refused(program("--card", card_path(model), "--model", tmp_path / "missing.mindir", right), "missing.mindir")
    refused(program("--card", card_path(model), "--model", tmp_path / "text.mindir", right), "text.mindir")
    assert program("--help").returncode == 0


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"task": "segmentation"}, "task is segmentation, and this program classifies"),
        ({"labels": []}, "labels"),
        ({"labels": ["one"]}, "1 labels"),
        ({"labels": 3}, "array"),
        ({"preprocessing": {}}, "image_size"),
        ({"preprocessing": {**SPEC, "image_size": [8]}}, "index 1"),
        ({"preprocessing": {**SPEC, "resize": 0}}, "resize is smaller than 1"),
        ({"preprocessing": {**SPEC, "orientation": "turn"}}, "orientation is 'turn'"),
        ({"preprocessing": {**SPEC, "image_size": [8, 16]}}, "describes 3072"),
        ({"output": {}}, "name"),
        (None, "parse error"),
    ],
)
def test_a_card_that_does_not_suit(program, model, tmp_path, change, part):
    """A description edited by hand, of another model, or no JSON at all is named with what is wrong."""
    text = card_path(model).read_text()
    card = tmp_path / "card.json"
    card.write_text("{" if change is None else json.dumps({**json.loads(text), **change}))
    np.zeros((3, 8, 8), np.float32).tofile(tmp_path / "image.bin")
    done = program("--model", model.with_name("tiny_lite.mindir"), "--card", card, tmp_path / "image.bin")
    refused(done, "card", str(card), part)
