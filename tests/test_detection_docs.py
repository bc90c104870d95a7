# SPDX-License-Identifier: Apache-2.0
"""docs/detection.md: the example runs as it stands, and finds what `infer.py` does."""

import re
import shutil

import numpy as np
import pytest
from detector_run import write_detector, write_photographs
from shell import ROOT

from src.deploy.export import export_checkpoint
from src.deploy.running.predict import open_predictor

PAGE = (ROOT / "docs" / "detection.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_photographs(folder / "data", [(50, 90)])
    return write_detector(folder), folder


@pytest.mark.parametrize("wishes", [{}, {"raw": True}, {"preprocess": True, "batch_size": 2}])
def test_the_example_finds_what_infer_does(run, wishes, tmp_path, monkeypatch, capsys):
    """People copy it: its letterbox, selection and way back have to be those of the house."""
    config, folder = run
    ((path, _),) = export_checkpoint(config, folder / "best.ckpt", ["onnx"], **wishes).items()
    for source, name in ((path, "model.onnx"), (f"{path}.json", "model.onnx.json")):
        shutil.copy(source, tmp_path / name)
    shutil.copy(folder / "data" / "images" / f"{0:012d}.png", tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    names = {}
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    exec(code, names)
    predictor = open_predictor(tmp_path / "model.onnx")
    ((_, found),) = predictor.answers(predictor.read([tmp_path / "photo.jpg"]))
    shown = names["Detector"]("model.onnx")("photo.jpg", 0)
    assert len(shown) == len(found.labels) > 10
    assert [label for label, *_ in shown] == [predictor.deployment.labels[k] for k in found.labels]
    np.testing.assert_allclose([score for _, score, _ in shown], found.scores, atol=1e-5)
    np.testing.assert_allclose([box for *_, box in shown], found.boxes, atol=0.01)
    assert len(capsys.readouterr().out.splitlines()) == (found.scores >= 0.3).sum()


def test_commands_and_links_name_what_is_there():
    """A reader can follow each."""
    for name in re.findall(r"config/[\w/]+\.yaml", PAGE):
        assert (ROOT / name).is_file(), name
    for target in re.findall(r"\]\((?!https?://|#)([^)]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
    known = "".join((ROOT / f"{name}.py").read_text() for name in ("export", "eval", "infer")) + "".join(
        path.read_text() for folder in ("src", "scripts") for path in (ROOT / folder).glob("*.py")
    )
    for option in set(re.findall(r"--(\w+)", PAGE)):
        assert re.search(rf"\b{option}\b", known), option
