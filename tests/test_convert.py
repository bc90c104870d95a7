# SPDX-License-Identifier: Apache-2.0
"""Published PyTorch files to checkpoints and back. PyTorch itself is not needed: NumPy archives stand for its files."""

import contextlib
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from golden_network import GOLDEN
from hypothesis import given
from hypothesis import strategies as st

from src.config import ModelConfig
from src.convert import conversion
from src.convert.conversion import model_of, to_checkpoint, to_pytorch
from src.convert.forms import FORMS, form_of
from src.convert.published_code import WrongConversion
from src.convert.torch_file import find_state_dict, read_state_dict
from src.errors import UserError
from src.models import create_model, list_models, pvt
from src.models.published import from_published, published_parts, to_published
from src.training.checkpoint import load_weights, read_checkpoint, save_weights
from src.training.network import build_network

ROOT = Path(__file__).resolve().parent.parent
RESNET = ModelConfig("acmix_resnet26", num_classes=5, image_size=32, options={"stem": "small", "width": 8})
SWIN = ModelConfig(
    "acmix_swin_tiny",
    num_classes=5,
    image_size=32,
    options={"width": 12, "depths": [2, 2, 1, 1], "patch": 2, "window": 4},
)
SAN = ModelConfig("san10", num_classes=5, image_size=32, options={"stem": "small", "width": 32})
PVT = ModelConfig("pvt_tiny", num_classes=5, image_size=32, options={"width": 8, "depths": [1, 1, 1, 1]})
FAMILIES = [RESNET, dataclasses.replace(RESNET, name="resnet50"), SWIN, SAN, PVT]
SWIN_PLAIN = dataclasses.replace(SWIN, name="swin_tiny")


@pytest.fixture(autouse=True)
def archives(monkeypatch):
    """Read and write `.npz` in place of PyTorch files."""

    def write(path, arrays):
        with open(path, "wb") as file:
            np.savez(file, **arrays)

    monkeypatch.setattr(conversion, "read_state_dict", lambda path: dict(np.load(path)))
    monkeypatch.setattr(conversion, "write_state_dict", write)


def checkpoint(path, model, seed=0):
    """Write a checkpoint whose values are all different; return them by name."""
    network, rng = build_network(model), np.random.default_rng(seed)
    for parameter in network.get_parameters():
        parameter.set_data(ms.Tensor(rng.standard_normal(parameter.shape).astype(np.float32)))
    save_weights(path, network, {"model": dataclasses.asdict(model)})
    return {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()}


def published_file(folder, model):
    """Write a published file; return its path."""
    checkpoint(folder / "made.ckpt", model)
    to_pytorch(folder / "made.ckpt", folder / "made.pth", model)
    return folder / "made.pth"


def weights(path):
    return {name: parameter.asnumpy() for name, parameter in read_checkpoint(path)[0].items()}


@pytest.mark.parametrize("model", [*FAMILIES, SWIN_PLAIN], ids=lambda model: model.name)
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
    tensors = to_published(values, form_of(name).rules)
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


def test_pvt_at_another_image_size(tmp_path):
    """Positions are interpolated, by the conversion as by loading a checkpoint; all else stays."""
    file = published_file(tmp_path, PVT)
    larger = dataclasses.replace(PVT, image_size=96)
    report = to_checkpoint(file, tmp_path / "b.ckpt", larger)
    assert [row[0] for row in report.rows if row[-1] == "interpolated"] == [f"embedding{i}.position" for i in "1234"]
    network = build_network(larger)
    load_weights(network, tmp_path / "made.ckpt")
    made, converted = weights(tmp_path / "made.ckpt"), weights(tmp_path / "b.ckpt")
    for parameter in network.get_parameters():
        expected = made[parameter.name]
        if "position" in parameter.name:
            stage = int(parameter.name[len("embedding")])
            side = 16 >> stage
            expected = pvt.resize_position(expected, (side, side), (3 * side, 3 * side))
        assert np.array_equal(parameter.asnumpy(), expected) and np.array_equal(converted[parameter.name], expected)


def test_the_constants_of_the_published_swin(tmp_path):
    """The mask parts what the roll brought together; the published code cannot hold maps of no whole windows."""
    tensors = np.load(published_file(tmp_path, SWIN))
    index = tensors["layers.0.blocks.1.attn.relative_position_index"]
    assert index.dtype == np.int64 and index[0, 0] == 24 and index[0, -1] == 0 and index[-1, 0] == 48
    assert "layers.0.blocks.0.attn_mask" not in tensors and "layers.2.blocks.0.attn_mask" not in tensors
    ends = np.repeat(np.repeat(np.arange(9).reshape(3, 3), [4, 2, 2], 0), [4, 2, 2], 1)  # of the 8x8 map, rolled by 2
    windows = ends.reshape(2, 4, 2, 4).transpose(0, 2, 1, 3).reshape(4, 16)
    expected = np.where(windows[:, :, None] == windows[:, None], 0, -100)
    assert np.array_equal(tensors["layers.1.blocks.1.attn_mask"], expected)
    filled_up = dataclasses.replace(SWIN, image_size=40)
    checkpoint(tmp_path / "b.ckpt", filled_up)
    with pytest.raises(UserError, match="--image_size 224"):
        to_pytorch(tmp_path / "b.ckpt", tmp_path / "b.pth", filled_up)


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: {"model": d, "epoch": 3}, lambda d: {"state_dict": d}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_state_dict_is_found_where_the_published_scripts_put_it(wrap, prefix):
    """Bare, or under model or state_dict; with the prefix of data parallel training or without."""
    state = {prefix + name: np.zeros(2) for name in ("a.weight", "module.b")}
    assert list(find_state_dict(wrap(state), np.ndarray, "x.pth")) == ["a.weight", "module.b"]


@pytest.mark.parametrize("content", [[1], {}, {"epoch": 3}, {"model": {}}, {"weight": np.zeros(2), "epoch": 3}])
def test_what_is_no_state_dict_is_refused(content):
    """The error names the file."""
    with pytest.raises(UserError, match=r"x\.pth"):
        find_state_dict(content, np.ndarray, "x.pth")


def fake_torch(load, version="2.6.0+cpu"):
    serialization = SimpleNamespace(safe_globals=lambda allowed: contextlib.nullcontext())
    return SimpleNamespace(load=load, serialization=serialization, Tensor=np.ndarray, __version__=version)


def test_a_file_is_never_unpickled(tmp_path, monkeypatch):
    """One clear line and no second try, whatever PyTorch's safe reader raises; releases without one are refused."""
    (tmp_path / "x.pth").write_bytes(b"junk")
    asked = []

    def load(path, **options):
        asked.append(options)
        raise RuntimeError("pages\nof\nadvice: weights_only=False")

    monkeypatch.setitem(sys.modules, "torch", fake_torch(load))
    with pytest.raises(UserError, match=r"x\.pth cannot be read") as refusal:
        read_state_dict(tmp_path / "x.pth")
    assert asked == [{"map_location": "cpu", "weights_only": True}] and "advice" not in str(refusal.value)
    monkeypatch.setitem(sys.modules, "torch", fake_torch(load, "2.5.1"))
    with pytest.raises(UserError, match=r"2\.5\.1.*upgrade"):
        read_state_dict(tmp_path / "x.pth")


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
        (["--model", "pvt_tiny", "--input", "{file}", "--output", "b.ckpt", "--model.options.width", "8"], "--config"),
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
