# SPDX-License-Identifier: Apache-2.0
"""docs/deployment.md: the example runs as it stands, and commands and links name what is there."""

import re
import shlex

import numpy as np
import pytest
from client_images import CASES, REFUSED, assert_alike, prepared, write_case, write_refused
from lite_model import LABELS, classified, write_images, write_model
from shell import ROOT

PAGE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


@pytest.fixture
def example(tmp_path, monkeypatch, capsys):
    """The names that the Python example defines and, as "shown", what it prints of model.onnx and photo.png."""
    write_model(tmp_path / "model.onnx")
    write_images(tmp_path)[0].rename(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")
    names = {}
    exec(code, names)
    return {**names, "shown": capsys.readouterr().out.splitlines()}


def test_the_example_classifies_as_the_network_does(example, tmp_path):
    """People copy it: its steps from a file to probabilities have to be those of training."""
    image = prepared("photo.png", example["classifier"].card["preprocessing"])
    (best,) = classified(tmp_path / "model.onnx", [image], len(LABELS))
    shown = [line.split(" %  ") for line in example["shown"]]
    assert [label for _, label in shown] == [label for label, _ in best[:3]]
    assert dict(example["classifier"]("photo.png")) == pytest.approx(dict(best), abs=0.02)
    with pytest.raises(FileNotFoundError, match="nothing"):
        example["classifier"]("nothing.png")


@pytest.mark.parametrize("case", CASES, ids=[name for name, *_ in CASES])
def test_the_example_prepares_images_as_training_does(example, tmp_path, case):
    """Of any size, shape, type and card; files with normalisation inside take bytes."""
    path, spec = write_case(tmp_path, *case)
    classifier = example["classifier"]
    classifier.card = {"preprocessing": spec, "input": {"dtype": "uint8"}}
    assert_alike(classifier.prepare(str(path)), path, spec)
    for dtype in ("float32", "float16"):
        classifier.card["input"]["dtype"] = dtype
        image = classifier.prepare(str(path))
        assert image.dtype == dtype
        assert np.abs(image.astype(float) - prepared(path, spec)).max() <= 1.5 / 255 / min(spec["std"])


@pytest.mark.parametrize("name", REFUSED)
def test_the_example_refuses_what_training_does(example, tmp_path, name):
    """OpenCV reads 16 bits as black, and a TIFF under any name."""
    write_refused(tmp_path)
    with pytest.raises(ValueError, match=f"{name} {REFUSED[name]}"):
        example["classifier"].prepare(name)


def test_commands_and_links_name_what_is_there():
    """A reader can follow each: scripts, configs and linked files exist, and the entry scripts know the options."""
    sources = [*(ROOT / f"{name}.py" for name in ("export", "eval", "infer")), *(ROOT / "src").glob("*.py")]
    known = "".join(path.read_text() for path in sources)
    for line in "".join(blocks("bash")).splitlines():
        words = [word for word in shlex.split(line, comments=True) if "=" not in word]
        for word in words:
            if re.match(r"(config|scripts|cpp_infer)\b", word) or word in ("export.py", "eval.py", "infer.py"):
                assert (ROOT / word).exists(), line
        if words[:1] == ["python"]:
            for option in (word for word in words if word.startswith("--")):
                assert re.search(rf"\b{option[2:]}\b", known), line
    for target in re.findall(r"\]\((?!https?://|#)([^)]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
    for option in re.findall(r"^\| `(--\w+)", PAGE, re.M):
        assert f'"{option}"' in known, option
