# SPDX-License-Identifier: Apache-2.0
"""scripts/lite_infer.py, which people copy: it prepares images as the training did and prints as infer.py does.

MindSpore Lite's Python interface is stood in for by onnxruntime, because it exists for Python 3.7 alone.
"""

import ast
import json
import os
import sys
import types

import numpy as np
import pytest
from client_images import CASES, REFUSED, assert_alike, prepared, write_case, write_refused
from lite_model import LABELS, classified, write_images, write_model
from shell import ROOT

from scripts import lite_infer
from src.deploy.card import card_path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An exported file with its description beside it."""
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    write_model(path)
    return path


@pytest.fixture
def lite(monkeypatch):
    """A `mindspore_lite` that keeps the ONNX file as it is and runs it in onnxruntime; lists the conversions."""
    import onnxruntime

    class Converter:
        def convert(self, kind, model, output):
            assert (kind, self.save_type) == ("ONNX", "MINDIR")
            done.append((os.path.basename(model), getattr(self, "input_shape", None)))
            with open(model, "rb") as source, open(f"{output}.mindir", "wb") as target:
                target.write(source.read())

    class Model:
        def build_from_file(self, path, kind, context):
            assert (kind, context.target, context.cpu.thread_num) == ("MINDIR", ["cpu"], 1)
            try:
                self.session = onnxruntime.InferenceSession(path)
            except Exception as error:
                raise RuntimeError("build failed") from error

        def get_inputs(self):
            tensor = types.SimpleNamespace(shape=self.session.get_inputs()[0].shape)
            tensor.set_data_from_numpy = lambda array: setattr(tensor, "array", array)
            return [tensor]

        def predict(self, inputs):
            (logits,) = self.session.run(None, {"image": inputs[0].array})
            return [types.SimpleNamespace(get_data_to_numpy=lambda: logits)]

    done = []
    module = types.ModuleType("mindspore_lite")
    module.ModelType = types.SimpleNamespace(MINDIR="MINDIR")
    module.FmkType = types.SimpleNamespace(ONNX="ONNX")
    module.Context = lambda: types.SimpleNamespace(cpu=types.SimpleNamespace())
    module.Converter, module.Model = Converter, Model
    monkeypatch.setitem(sys.modules, "mindspore_lite", module)
    return done


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["lite_infer.py", *map(str, words)])
    lite_infer.main()


def refused(*words):
    with pytest.raises(lite_infer.UserError) as error:
        lite_infer.parse_arguments(list(map(str, words)))
    return str(error.value)


def test_classifies_as_training_does(model, lite, monkeypatch, capsys, tmp_path):
    """Three images through a model of two at once: labels and probabilities as of Pillow's images."""
    images = write_images(tmp_path)
    run(monkeypatch, "--model", model, "--topk", 3, "--threads", 1, *images)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    spec = json.loads(card_path(model).read_text())["preprocessing"]
    inputs = [prepared(path, spec) for path in images]
    for line, path, best in zip(lines, images, classified(model, inputs, 3), strict=True):
        assert line["image"] == str(path)
        assert [entry["label"] for entry in line["topk"]] == [label for label, _ in best]
        assert [entry["probability"] for entry in line["topk"]] == pytest.approx([p for _, p in best], abs=0.02)
    run(monkeypatch, "--model", model)
    assert capsys.readouterr().out.strip() == str(model.with_name("tiny_lite.mindir"))
    assert lite == [("tiny.onnx", None)], "converted once, and used again"
    os.utime(model, (2e9, 2e9))
    run(monkeypatch, "--model", model)
    assert len(lite) == 2, "a newer ONNX file is converted again"


@pytest.mark.parametrize("case", CASES, ids=[name for name, *_ in CASES])
def test_prepares_images_as_training_does(tmp_path, case):
    """Of any size, shape, type and card: scaling, crop, grey, orientation and normalisation are Pillow's."""
    path, spec = write_case(tmp_path, *case)
    card = {"preprocessing": spec, "input": {"dtype": "uint8"}}
    assert_alike(lite_infer.prepare(str(path), card), path, spec)
    card["input"]["dtype"] = "float32"
    ours, theirs = lite_infer.prepare(str(path), card), prepared(path, spec)
    assert ours.dtype == np.float32
    assert np.abs(ours - theirs).max() <= 1.01 / 255 / min(spec["std"])


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_training_does_not_read(model, tmp_path, name):
    """OpenCV reads 16 bits as black, and a TIFF under any name: one line says what to do."""
    write_refused(tmp_path)
    with pytest.raises(lite_infer.UserError, match=f"{name} {REFUSED[name]}"):
        lite_infer.prepare(str(tmp_path / name), lite_infer.read_card(str(model)))


def test_probabilities_stay_as_they_are():
    """A file with softmax inside gives probabilities: no second softmax."""
    card = {"output": {"name": "probabilities"}, "labels": LABELS}
    best = lite_infer.best(np.array([0.1, 0.4, 0.0, 0.4, 0.1], np.float32), card, 2)
    assert [entry["label"] for entry in best] == [LABELS[1], LABELS[3]]
    assert best[0]["probability"] == pytest.approx(0.4)


def test_what_cannot_be_used_is_named(model, lite, monkeypatch, tmp_path):
    """A missing or damaged file, a wrong number, an array of another shape: one line each."""
    assert "nothing.onnx" in refused("--model", tmp_path / "nothing.onnx")
    assert "--topk is 0" in refused("--model", model, "--topk", 0)
    card = lite_infer.read_card(str(model))
    (tmp_path / "empty.npy").touch()
    np.save(tmp_path / "small.npy", np.zeros((3, 4, 4), np.float32))
    np.save(tmp_path / "double.npy", np.zeros((3, 8, 8)))
    for name in ("missing.png", "empty.npy", "missing.npy", "small.npy", "double.npy"):
        with pytest.raises(lite_infer.UserError, match=name):
            lite_infer.prepare(str(tmp_path / name), card)
    np.save(tmp_path / "right.npy", np.ones((3, 8, 8), np.float32))
    assert lite_infer.prepare(str(tmp_path / "right.npy"), card).sum() == 3 * 64
    (tmp_path / "x.onnx").write_bytes(b"")
    with pytest.raises(lite_infer.UserError, match=r"x\.onnx\.json"):
        lite_infer.read_card(str(tmp_path / "x.onnx"))
    for text in ("[", "[]", '{"labels": []}'):
        (tmp_path / "x.onnx.json").write_text(text)
        with pytest.raises(lite_infer.UserError, match=r"x\.onnx\.json"):
            lite_infer.read_card(str(tmp_path / "x.onnx"))
    (tmp_path / "x.onnx.json").write_text('{"task": "segmentation"}')
    with pytest.raises(lite_infer.UserError, match="is of task segmentation, and this classifies"):
        lite_infer.read_card(str(tmp_path / "x.onnx"))
    (tmp_path / "x_lite.mindir").write_bytes(b"damaged")
    with pytest.raises(lite_infer.UserError, match=r"x_lite\.mindir"):
        lite_infer.LiteModel(str(tmp_path / "x_lite.mindir"), 1)
    monkeypatch.setitem(sys.modules, "mindspore_lite", None)
    with pytest.raises(lite_infer.UserError, match="has no MindSpore Lite"):
        lite_infer.mindspore_lite()


def test_it_is_a_program_by_itself():
    """Lite's Python is 3.7 and has NumPy: nothing newer in the syntax, nothing of this repository."""
    tree = ast.parse((ROOT / "scripts" / "lite_infer.py").read_text(), feature_version=(3, 7))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported == {"argparse", "contextlib", "json", "os", "sys", "numpy", "cv2", "mindspore_lite"}
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))
