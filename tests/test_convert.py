# SPDX-License-Identifier: Apache-2.0
"""Published PyTorch files to checkpoints and back. PyTorch itself is not needed: NumPy archives stand for its files."""

import contextlib
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conversion_files import (  # noqa: F401  archives is a fixture
    FAMILIES,
    PVT,
    RESNET,
    SWIN_PLAIN,
    archives,
    checkpoint,
    published_file,
    weights,
)
from golden_network import GOLDEN
from hypothesis import given
from hypothesis import strategies as st

from src.config import ModelConfig
from src.convert import conversion
from src.convert.conversion import model_of, to_checkpoint, to_pytorch
from src.convert.forms import FORMS, form_of
from src.convert.published_code import WrongConversion
from src.errors import UserError
from src.models import create_model, list_models
from src.models.published import from_published, published_parts, to_published
from src.training.checkpoint import save_weights
from src.training.network import build_network

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.usefixtures("archives")


@pytest.mark.parametrize(
    "model",
    [*FAMILIES, SWIN_PLAIN, dataclasses.replace(SWIN_PLAIN, drop_path_rate=0.2)],
    ids=lambda model: f"{model.name}-{model.drop_path_rate}",
)
def test_there_and_back_is_the_same(model, tmp_path):
    """Every value of every family comes back bit for bit, with the settings that `eval.py` and `export.py` need."""
    values = checkpoint(tmp_path / "a.ckpt", model)
    assert model_of(tmp_path / "a.ckpt", model.name) == model
    there = to_pytorch(tmp_path / "a.ckpt", tmp_path / "a.pth", model)
    back = to_checkpoint(tmp_path / "a.pth", tmp_path / "b.ckpt", dataclasses.replace(model, num_classes=1000))
    returned = weights(tmp_path / "b.ckpt")
    assert returned.keys() == values.keys()
    assert all(np.array_equal(returned[name], value) for name, value in values.items())
    assert model_of(tmp_path / "b.ckpt", model.name) == back.model == model
    tensors = np.load(tmp_path / "a.pth")
    assert there.buffers == back.buffers == len(tensors) - len(back.rows)
    assert there.rows == back.rows and all(tensors[row[2]].shape == row[3] for row in back.rows)


@pytest.mark.parametrize("name", ["acmix_resnet26", "acmix_swin_tiny", "san10", "pvt_tiny"])
def test_names_and_shapes_are_the_published_ones(name):
    """What `load_state_dict(strict=True)` of the published code asks for, linear layers as matrices included."""
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    values = {parameter.name: parameter.asnumpy() for parameter in create_model(name).get_parameters()}
    tensors = to_published(values, form_of(ModelConfig(name)).rules)
    assert {name: list(tensor.shape) for name, tensor in tensors.items()} == dict(golden["tensors"])


SHAPES = {"level0.layer.0.sam.qkv.weight": (12, 8, 1, 1), "conv_in.weight": (4, 3, 1, 1), "fc.weight": (5, 4)}


@given(st.sampled_from(["missing", "left over", "different", "integers"]), st.data())
def test_a_tensor_that_does_not_fit_is_named(kind, data):
    """Missing, left over, of another shape with as many elements, or no floating-point numbers: never converted."""
    rules = FORMS["san10"].rules
    parts = [part for name, shape in SHAPES.items() for part in published_parts(name, shape, rules)]
    tensors = {part.name: np.zeros(part.shape, np.float32) for part in parts}
    assert from_published(SHAPES, tensors, rules).keys() == SHAPES.keys()
    name = data.draw(st.sampled_from(sorted(tensors)))
    if kind == "missing":
        del tensors[name]
    elif kind == "left over":
        name = "layer9.weight"
        tensors[name] = np.zeros(1, np.float32)
    elif kind == "different":
        shape = data.draw(st.sampled_from([tensors[name].shape[::-1], (tensors[name].size,), tensors[name].shape[:-1]]))
        tensors[name] = np.zeros(shape, np.float32)
    else:
        tensors[name] = tensors[name].astype(np.int64)
        kind = "different"
    with pytest.raises(ValueError, match=f"1 {kind}: {name}"):
        from_published(SHAPES, tensors, rules)


def test_another_model_is_refused_and_writes_nothing(tmp_path):
    """The error says how many tensors are wrong on each side; an older output stays."""
    file = published_file(tmp_path, RESNET)
    (tmp_path / "b.ckpt").write_text("older")
    with pytest.raises(UserError, match=r"does not fit resnet50: \d+ missing: .*\d+ left over: .*rate1"):
        to_checkpoint(file, tmp_path / "b.ckpt", dataclasses.replace(RESNET, name="resnet50"))
    assert (tmp_path / "b.ckpt").read_text() == "older"


def test_a_wrong_network_gets_no_file(tmp_path, monkeypatch):
    """`--verify` decides before the output has its name."""

    def wrong(*_):
        raise WrongConversion("differs")

    file = published_file(tmp_path, PVT)
    monkeypatch.setattr(conversion, "compare", wrong)
    for convert, source, output in ((to_checkpoint, file, "b.ckpt"), (to_pytorch, tmp_path / "made.ckpt", "b.pth")):
        with pytest.raises(WrongConversion):
            convert(source, tmp_path / output, PVT, published_code="clone")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made.ckpt", "made.pth"]


def test_the_classifier_is_dropped_only_when_told(tmp_path):
    """Another class count is an error with both numbers; a new classifier is the same each time, the rest as it was."""
    file = published_file(tmp_path, RESNET)
    with pytest.raises(UserError, match=r"has 5 classes, not the 7 .*--drop_head"):
        to_checkpoint(file, tmp_path / "b.ckpt", RESNET, num_classes=7)
    for name in ("b.ckpt", "c.ckpt"):
        report = to_checkpoint(file, tmp_path / name, RESNET, num_classes=7, drop_head=True)
    assert report.model.num_classes == model_of(tmp_path / "b.ckpt", RESNET.name).num_classes == 7
    assert [row[0] for row in report.rows if row[-1] == "initial value"] == ["fc.weight", "fc.bias"]
    made, first, second = (weights(tmp_path / name) for name in ("made.ckpt", "b.ckpt", "c.ckpt"))
    assert first["fc.weight"].shape == (7, 256) and first["fc.weight"].std() > 0
    for name, value in first.items():
        assert np.array_equal(value, second[name])
        assert name.startswith("fc.") or np.array_equal(value, made[name])


def test_values_that_are_not_finite_are_refused(tmp_path, monkeypatch):
    """Both ways, naming the tensor; nothing is written."""
    file = published_file(tmp_path, PVT)
    tensors = dict(np.load(file))
    tensors["block1.0.attn.q.weight"][0, 1] = np.nan
    with open(file, "wb") as stream:
        np.savez(stream, **tensors)
    with pytest.raises(UserError, match=r"made\.pth: tensor block1\.0\.attn\.q\.weight has 1 of 64 values"):
        to_checkpoint(file, tmp_path / "b.ckpt", PVT)
    network = build_network(PVT)
    network.head.bias[2] = np.inf
    with monkeypatch.context() as patch:
        patch.setattr("src.training.checkpoint.check_finite", lambda *_: None)
        save_weights(tmp_path / "a.ckpt", network, {})
    with pytest.raises(UserError, match=r"a\.ckpt: tensor head\.bias has 1 of 5 values"):
        to_pytorch(tmp_path / "a.ckpt", tmp_path / "b.pth", PVT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ckpt", "made.ckpt", "made.pth"]


def test_a_damaged_checkpoint_is_refused(tmp_path):
    """The way back begins with the checksum."""
    checkpoint(tmp_path / "a.ckpt", PVT)
    whole = (tmp_path / "a.ckpt").read_bytes()
    (tmp_path / "a.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged"):
        model_of(tmp_path / "a.ckpt", PVT.name)
    with pytest.raises(UserError, match="damaged"):
        to_pytorch(tmp_path / "a.ckpt", tmp_path / "a.pth", PVT)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    """With the name to give."""
    checkpoint(tmp_path / "a.ckpt", PVT)
    with pytest.raises(UserError, match="--model pvt_tiny"):
        model_of(tmp_path / "a.ckpt", "pvt_small")


def test_every_published_model_can_be_converted():
    """ACmix-SAN, ACmix-PVT and attention alone have no PyTorch form; all models but theirs and small ResNets have."""
    without = set(list_models()) - set(FORMS)
    assert without == {
        *list_models("acmix_san*"),
        *list_models("acmix_pvt*"),
        *list_models("sasa_*"),
        "resnet26",
        "resnet38",
    }


def run(*words):
    command = [sys.executable, "scripts/convert_checkpoint.py", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--model", "pvt_tiny", "--input", "no.pth", "--output", "b.ckpt"], "no.pth"),
        (["--model", "pvt_tiny", "--input", "{file}", "--output", "b.pth"], "--reverse"),
        (["--model", "pvt_tiny", "--input", "{file}", "--output", "no/b.ckpt"], "no/b.ckpt"),
        (["--input", "{file}", "--output", "b.ckpt"], "--model"),
        (["--model", "pvt_tiny", "--input", "{file}", "--output", "b.ckpt", "--image_size", "8", "8", "8"], "(H, W)"),
        (["--model", "pvt_tiny", "--input", "{file}", "--output", "b.ckpt", "--data.resize", "8"], "--config"),
        (["--model", "pvt_tiny", "--input", "{file}", "--output", "b.ckpt", "--model.image_siz", "8"], "image_size"),
        (["--model", "acmix_pvt_tiny", "--input", "{file}", "--output", "b.ckpt"], "nobody published acmix_pvt_tiny"),
        (["--model", "pvt_tine", "--input", "{file}", "--output", "b.ckpt"], "did you mean 'pvt_tiny'"),
    ],
)
def test_mistakes_on_the_command_line(words, named, tmp_path):
    """One line and exit code 2, with or without PyTorch."""
    (tmp_path / "a.pth").write_bytes(b"junk")
    done = run(*(word.format(file=tmp_path / "a.pth") for word in words))
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert named in done.stderr


def test_without_pytorch(tmp_path):
    """Both ways the command says what to install, and leaves nothing behind."""
    with contextlib.suppress(ImportError):
        import torch  # noqa: F401

        pytest.skip("PyTorch is here")
    (tmp_path / "a.pth").write_bytes(b"junk")
    checkpoint(tmp_path / "a.ckpt", PVT)
    for words in (["a.pth", "--output", tmp_path / "b.ckpt"], ["a.ckpt", "--output", tmp_path / "b.pth", "--reverse"]):
        done = run("--model", "pvt_tiny", "--input", tmp_path / words[0], *words[1:])
        assert done.returncode == 2 and "pip install torch" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ckpt", "a.pth"]
