# SPDX-License-Identifier: Apache-2.0
"""PyTorch files as people have them: which weights are taken, and that nothing in them is run or passes unseen."""

import argparse
import contextlib
import datetime
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from src.convert.torch_file import find_state_dict, read_state_dict
from src.errors import UserError
from src.training.finite import check_finite

RAW, AVERAGED = {"a": np.zeros(2)}, {"a": np.ones(2)}


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: {"model": d, "epoch": 3}, lambda d: {"state_dict": d}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_state_dict_is_found_where_the_published_scripts_put_it(wrap, prefix):
    """Bare, or under model or state_dict; with the prefix of data parallel training or without."""
    state = {prefix + name: np.zeros(2) for name in ("a.weight", "module.b")}
    assert list(find_state_dict(wrap(state), np.ndarray, "x.pth")[0]) == ["a.weight", "module.b"]


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


@pytest.mark.parametrize(
    ("content", "entry", "taken", "said"),
    [
        ({"model": RAW, "model_ema": AVERAGED, "epoch": 3}, None, RAW, "entry model; left: model_ema (--entry"),
        ({"state_dict_ema": AVERAGED, "state_dict": RAW}, None, RAW, "entry state_dict; left: state_dict_ema"),
        ({"model": RAW, "model_ema": AVERAGED}, "model_ema", AVERAGED, "entry model_ema; left: model ("),
        ({"model_state_dict": RAW, "optimizer": {"state": {0: RAW}}}, None, RAW, "entry model_state_dict"),
        ({"ema": AVERAGED}, None, AVERAGED, "entry ema"),
        ({"teacher": AVERAGED}, "teacher", AVERAGED, "entry teacher"),
        (RAW, None, RAW, None),
    ],
)
def test_averaged_weights_beside_raw_ones(content, entry, taken, said):
    """One set is taken, the other named; `--entry` asks for it; a file that is one set needs no word."""
    tensors, sentences = find_state_dict(content, np.ndarray, "x.pth", entry)
    assert tensors["a"] is taken["a"]
    assert len(sentences) == (said is not None) and all(said in sentence for sentence in sentences)
    assert all(("left" in sentence) == (len(content) > 1 and "optimizer" not in content) for sentence in sentences)


@pytest.mark.parametrize(
    ("content", "entry", "named"),
    [
        (
            {"model": RAW, "model_ema": AVERAGED},
            "model_em",
            "no entry model_em .*did you mean 'model_ema'.*model, model_ema",
        ),
        ({"model": RAW, "epoch": 3}, "epoch", "no entry epoch with weights.*: model$"),
        ({"teacher": RAW}, None, "entries with weights: teacher; name one with --entry"),
        (RAW, "model", "no entry model .*: none$"),
        ([1], "model", "no entry model"),
        ({0: np.zeros(2)}, None, "no tensors among its weights: 0"),
    ],
)
def test_an_entry_that_is_not_there(content, entry, named):
    """The message lists those there are."""
    with pytest.raises(UserError, match=named):
        find_state_dict(content, np.ndarray, "x.pth", entry)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "backbone.", "module._orig_mod.", "model.backbone."]
)
def test_prefixes_that_all_names_share(prefix):
    """They are of wrappers, taken off and said; one that only some names have is part of them."""
    state = {prefix + name: np.zeros(2) for name in ("a.weight", "b.model.c")}
    tensors, said = find_state_dict(state, np.ndarray, "x.pth")
    assert list(tensors) == ["a.weight", "b.model.c"] and said == [f"all names began with {prefix}, which is taken off"]
    state["c"] = np.zeros(2)
    assert find_state_dict(state, np.ndarray, "x.pth") == (state, [])


def test_pytorchs_own_averages():
    """Their counter is no weight, and keeps no prefix from being seen."""
    state = {"n_averaged": np.array(7), "module.a": np.zeros(2)}
    tensors, said = find_state_dict({"model_ema": state}, np.ndarray, "x.pth")
    assert list(tensors) == ["a"] and len(said) == 3 and "n_averaged" in said[1]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value):
    """The first such tensor is named, with how many; integers and finite numbers pass."""
    arrays = {"counts": np.arange(3), "a": np.ones(4, np.float32), "b": np.array([[1, value], [value, 2]], np.float32)}
    with pytest.raises(UserError, match=r"x\.pth: tensor b has 2 of 4 values that are not finite"):
        check_finite(arrays, "x.pth")
    arrays["b"][~np.isfinite(arrays["b"])] = 0
    check_finite(arrays, "x.pth")


def history_buffer(monkeypatch):
    """What mmengine keeps of the losses: arrays, and functions by name."""

    class HistoryBuffer:
        def __init__(self):
            self.log, self.methods = np.arange(3.0), {"min": HistoryBuffer.min}

        def min(self):
            return self.log.min()

    module = ModuleType("mmengine.logging.history_buffer")
    module.HistoryBuffer = HistoryBuffer
    for name in ("mmengine", "mmengine.logging", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = module.__name__, "HistoryBuffer"
    HistoryBuffer.min.__qualname__, HistoryBuffer.min.__module__ = "HistoryBuffer.min", module.__name__
    return HistoryBuffer()


def test_what_pytorch_writes(tmp_path, monkeypatch):
    """With PyTorch itself: settings and NumPy's numbers beside the weights are read over, other objects are named."""
    torch = pytest.importorskip("torch")
    weights = {"module.a": torch.arange(4.0).bfloat16(), "module.b": torch.ones(2, dtype=torch.int64)}
    beside = {"args": argparse.Namespace(lr=1), "best": np.float64(78.25), "many": [np.int64(3), np.float32(2)]}
    beside["message_hub"] = history_buffer(monkeypatch)
    torch.save({"model": weights, **beside}, tmp_path / "x.pth")
    arrays, said = read_state_dict(tmp_path / "x.pth")
    assert {name: array.tolist() for name, array in arrays.items()} == {"a": [0, 1, 2, 3], "b": [1, 1]}
    assert arrays["a"].dtype == np.float32 and len(said) == 2
    torch.save({"model": weights, "when": datetime.timedelta(1)}, tmp_path / "x.pth")
    with pytest.raises(
        UserError, match=r"x\.pth cannot be read: it holds a datetime\.timedelta, which only running code"
    ):
        read_state_dict(tmp_path / "x.pth")
