# SPDX-License-Identifier: Apache-2.0
"""How cpp_infer goes from an image file to the network's input; no MindSpore Lite is needed for that."""

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from client_images import CASES, REFUSED, SPEC, assert_alike, prepared, write_case, write_refused
from shell import ROOT

SOURCES = ROOT / "cpp_infer" / "src"
MAIN = """
#include <iostream>
#include "card.h"
#include "error.h"
#include "image.h"

int main(int, char **argv) {
  try {
    const auto bytes = LoadImage(argv[2], Card::Read(argv[1]));
    std::cout.write(reinterpret_cast<const char *>(bytes.data()), bytes.size());
  } catch (const Error &error) {
    std::cerr << error.what();
    return 2;
  }
}
"""


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """A program of `cpp_infer`'s sources that writes the bytes of an image: `load(path, spec, dtype)`."""
    if not shutil.which("g++"):
        pytest.skip("there is no g++")
    found = subprocess.run(["pkg-config", "--cflags-only-I", "opencv4"], capture_output=True, text=True)
    if found.returncode:
        pytest.skip("there is no OpenCV for C++")
    folder = tmp_path_factory.mktemp("build")
    (folder / "main.cc").write_text(MAIN)
    mindspore = Path(importlib.util.find_spec("mindspore").origin).parent
    folders = [*found.stdout.split(), f"-I{SOURCES}", "-isystem", mindspore / "include" / "third_party"]
    files = [folder / "main.cc", *(SOURCES / f"{name}.cc" for name in ("card", "image", "scale"))]
    libraries = [f"-lopencv_{name}" for name in ("core", "imgproc", "imgcodecs")]
    options = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-DWITH_OPENCV"]
    command = ["g++", *options, *folders, *files, *libraries, "-o", folder / "load"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    def run(path, spec, dtype):
        card = {"preprocessing": spec, "input": {"dtype": dtype}, "output": {"name": "logits"}, "labels": ["one"]}
        (folder / "card.json").write_text(json.dumps(card))
        return subprocess.run([folder / "load", folder / "card.json", path], capture_output=True, timeout=60)

    return run


@pytest.mark.parametrize("case", CASES, ids=[name for name, *_ in CASES])
def test_prepares_images_as_training_does(load, tmp_path, case):
    """Of any size, shape, type and card: scaling, crop, grey, orientation and normalisation are Pillow's."""
    path, spec = write_case(tmp_path, *case)
    theirs = prepared(path, spec)
    pixels = np.frombuffer(load(path, spec, "uint8").stdout, np.uint8)
    assert_alike(pixels.reshape(*theirs.shape[1:], -1), path, spec)
    ours = np.frombuffer(load(path, spec, "float32").stdout, np.float32).reshape(theirs.shape)
    assert np.abs(ours - theirs).max() <= 1.01 / 255 / min(spec["std"])


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_training_does_not_read(load, tmp_path, name):
    """OpenCV reads 16 bits as black, and a TIFF under any name: one line says what to do."""
    write_refused(tmp_path)
    done = load(tmp_path / name, SPEC, "float32")
    assert (done.returncode, done.stdout) == (2, b"")
    assert f"{name} {REFUSED[name]}" in done.stderr.decode()
