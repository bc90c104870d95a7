# SPDX-License-Identifier: Apache-2.0
"""docs/deployment.md: the example runs as it stands, and commands and links name what is there."""

import re
import shlex

import numpy as np
import pytest
from lite_model import LABELS, classified, write_images, write_model
from shell import ROOT

from src.data.transforms import load_image
from src.deploy.card import read_card

PAGE = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


def test_the_example_classifies_as_the_network_does(tmp_path, monkeypatch, capsys):
    """People copy it: its steps from a file to probabilities have to be those of training, from any file size."""
    write_model(tmp_path / "model.onnx")
    photo, *_ = write_images(tmp_path)
    photo.rename(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    (example,) = blocks("python")
    names = {}
    exec(example, names)
    image = load_image("photo.png", read_card(tmp_path / "model.onnx")["preprocessing"])
    (best,) = classified(tmp_path / "model.onnx", [image], len(LABELS))
    shown = [line.split(" %  ") for line in capsys.readouterr().out.splitlines()]
    assert [label for _, label in shown] == [label for label, _ in best[:3]]
    assert dict(names["classifier"]("photo.png")) == pytest.approx(dict(best), abs=0.02)
    with pytest.raises(ValueError, match="nothing"):
        names["classifier"]("nothing.png")


@pytest.mark.parametrize("channels", [1, 3])
def test_the_example_prepares_pixels_and_grey(tmp_path, monkeypatch, channels):
    """Files with normalisation inside take bytes, and those of grey images one channel."""
    write_model(tmp_path / "model.onnx")
    write_images(tmp_path)[0].rename(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(blocks("python")[0], names)
    spec = {**names["classifier"].card["preprocessing"], "in_channels": channels, "mean": [0.0] * channels}
    spec |= {"std": [1 / 255] * channels}
    for dtype, shape in (("uint8", (8, 8, channels)), ("float32", (channels, 8, 8)), ("float16", (channels, 8, 8))):
        names["classifier"].card = {"preprocessing": spec, "input": {"dtype": dtype}}
        image = names["classifier"].prepare("photo.png")
        assert (image.shape, image.dtype) == (shape, dtype)
        image = image.transpose(2, 0, 1) if dtype == "uint8" else image
        assert np.abs(image.astype(float) - load_image("photo.png", spec)).max() <= 1.01


def test_commands_and_links_name_what_is_there():
    """A reader can follow each: scripts, configs and linked files exist, and the entry scripts know the options."""
    sources = [ROOT / "export.py", ROOT / "eval.py", *(ROOT / "src").glob("*.py")]
    known = "".join(path.read_text() for path in sources)
    for line in "".join(blocks("bash")).splitlines():
        words = [word for word in shlex.split(line, comments=True) if "=" not in word]
        for word in words:
            if re.match(r"(config|scripts|cpp_infer)\b", word) or word in ("export.py", "eval.py"):
                assert (ROOT / word).exists(), line
        if words[:1] == ["python"]:
            for option in (word for word in words if word.startswith("--")):
                assert re.search(rf"\b{option[2:]}\b", known), line
    for target in re.findall(r"\]\((?!https?://|#)([^)]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target
    for option in re.findall(r"^\| `(--\w+)", PAGE, re.M):
        assert f'"{option}"' in known, option
