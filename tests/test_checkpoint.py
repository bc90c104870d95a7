# SPDX-License-Identifier: Apache-2.0
"""Checkpoints come back exactly, are refused when damaged or foreign, and survive a write that fails."""

import resource
from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from src.config import OptimizerConfig
from src.errors import UserError
from src.training.atomic import remove_leftovers, replacing
from src.training.checkpoint import (
    load_training_state,
    load_weights,
    read_checkpoint,
    save_training_state,
    save_weights,
)
from src.training.optimizer import create_optimizer
from src.training.precision import mixed_precision

META = {"epoch": 3, "best": 97.25, "model": {"name": "tiny", "num_classes": 5, "options": {"stem": "small"}}}


class Tiny(nn.Cell):
    def __init__(self, width=4, classes=5):
        super().__init__()
        self.alpha = ms.Parameter(ms.Tensor(0.5, ms.float32))
        self.conv = nn.Conv2d(1, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.fc = nn.Dense(width, classes)

    def construct(self, x):
        return self.fc((self.alpha * self.norm(self.conv(x))).mean((2, 3)))


def scrambled(cell, seed):
    """Give every parameter of `cell` values of its own."""
    rng = np.random.default_rng(seed)
    for parameter in cell.get_parameters():
        values = rng.standard_normal(parameter.shape) * 10
        parameter.set_data(ms.Tensor(np.asarray(values).astype(ms.dtype_to_nptype(parameter.dtype))))
    return cell


def optimizer_of(network, lr=0.1, momentum=0.9):
    config = OptimizerConfig(momentum=momentum)
    return create_optimizer(network, config, np.full(10, lr, np.float32))


def values(cell):
    return {parameter.name: parameter.asnumpy().copy() for parameter in cell.get_parameters()}


def test_training_state_comes_back_exactly(tmp_path):
    """Protects resuming: weights, moving averages, moments, step count and meta; settings stay the new run's."""
    network = Tiny()
    optimizer = scrambled(optimizer_of(network), seed=1)
    scrambled(network, seed=2)
    save_training_state(tmp_path / "last.ckpt", network, optimizer, META)
    other = Tiny()
    other_optimizer = optimizer_of(other, lr=0.7, momentum=0.5)
    assert load_training_state(other, other_optimizer, tmp_path / "last.ckpt") == META
    # Copies of weights are no part of the file: a step begins with new ones.
    optimizer.begin()
    other_optimizer.begin()
    saved, loaded = values(optimizer) | values(network), values(other_optimizer) | values(other)
    for name in saved:
        if name == "learning_rate":
            np.testing.assert_array_equal(loaded[name], np.full(10, 0.7, np.float32))
        elif name == "momentum":
            assert loaded[name] == np.float32(0.5)
        else:
            np.testing.assert_array_equal(loaded[name], saved[name], err_msg=name)
    assert {"global_step", "moments.conv.weight", "norm.moving_mean", "alpha"} <= set(saved)


def test_weights_load_from_either_kind_and_at_any_precision(tmp_path):
    """Protects eval, export and infer: best.ckpt and last.ckpt both do, O2 training writes the same names."""
    network = Tiny()
    mixed_precision(network, "O2")
    scrambled(network, seed=3)
    save_weights(tmp_path / "best.ckpt", network, META)
    save_training_state(tmp_path / "last.ckpt", network, optimizer_of(network), META)
    for name in ("best.ckpt", "last.ckpt"):
        other = Tiny()
        assert load_weights(other, tmp_path / name) == META
        for key, value in values(network).items():
            np.testing.assert_array_equal(values(other)[key], value)


def test_every_cut_and_every_flipped_byte_is_refused(tmp_path):
    """Protects from half a checkpoint: MindSpore itself accepts one that is cut between two tensors."""
    network = Tiny(width=2, classes=2)
    path = tmp_path / "last.ckpt"
    save_training_state(path, network, optimizer_of(network), META)
    content = path.read_bytes()
    read_checkpoint(path)
    damaged = tmp_path / "damaged.ckpt"
    for position in range(len(content)):
        damaged.write_bytes(content[:position])
        with pytest.raises(UserError, match=r"damaged\.ckpt is damaged or incomplete"):
            read_checkpoint(damaged)
    for position in range(0, len(content), 7):
        damaged.write_bytes(content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])
        with pytest.raises(UserError, match=r"damaged\.ckpt is damaged or incomplete"):
            read_checkpoint(damaged)


def test_foreign_files_are_refused(tmp_path):
    """Protects the caller: no file, a folder, another suffix, a text, a plain MindSpore file, weights only."""
    (tmp_path / "folder.ckpt").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    for name in ("absent.ckpt", "folder.ckpt", "notes.txt"):
        with pytest.raises(UserError, match=f"no checkpoint .*{name}"):
            read_checkpoint(tmp_path / name)
    (tmp_path / "text.ckpt").write_text("hello " * 10)
    ms.save_checkpoint(Tiny(), str(tmp_path / "plain.ckpt"))
    for name in ("text.ckpt", "plain.ckpt"):
        with pytest.raises(UserError, match=f"{name} is damaged or incomplete, or not written by this program"):
            read_checkpoint(tmp_path / name)
    network = Tiny()
    save_weights(tmp_path / "best.ckpt", network, META)
    with pytest.raises(UserError, match=r"best\.ckpt holds weights only"):
        load_training_state(network, optimizer_of(network), tmp_path / "best.ckpt")


def test_memory_that_holds_old_files_is_made_free(tmp_path, monkeypatch):
    """After a large data set little memory is free, for which MindSpore refuses a checkpoint; true want is named."""
    path = tmp_path / "best.ckpt"
    save_weights(path, Tiny(), META)
    pages, ones = {"SC_AVPHYS_PAGES": 1, "SC_PAGE_SIZE": 1}, np.ones

    def asked_for(size, kind):
        pages["SC_AVPHYS_PAGES"] += size
        return ones(size, kind)

    memory = SimpleNamespace(available=10**9, free=1)
    monkeypatch.setattr("os.sysconf", pages.__getitem__)
    monkeypatch.setattr("src.training.memory.np.ones", asked_for)
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    assert read_checkpoint(path)[1] == META
    memory.available = 1
    with pytest.raises(UserError, match=r"best\.ckpt needs 0\.0 GB of memory but 0\.0 GB are available"):
        read_checkpoint(path)


def test_checkpoint_of_another_model_is_refused(tmp_path):
    """Protects from a network filled in part: other shapes, missing and unexpected names."""
    save_weights(tmp_path / "best.ckpt", Tiny(), META)
    before = Tiny(classes=7)
    kept = values(before)
    with pytest.raises(UserError) as error:
        load_weights(before, tmp_path / "best.ckpt")
    message = str(error.value)
    assert "written for tiny with 5 classes" in message
    assert "different: fc.weight (file float32 (5, 4), model float32 (7, 4)), fc.bias" in message
    assert "\n" not in message
    for name, value in values(before).items():
        np.testing.assert_array_equal(value, kept[name])
    with pytest.raises(UserError, match=r"missing: weight, bias; unexpected: alpha, conv\.weight, .* and 5 more"):
        load_weights(nn.Dense(4, 5), tmp_path / "best.ckpt")


def test_weights_that_are_no_numbers(tmp_path, monkeypatch):
    """A NaN, which a ReLU on CPU hides, is refused where it is read and where it is written, with the tensor's name."""
    network, path = scrambled(Tiny(), 1), tmp_path / "a.ckpt"
    save_weights(path, network, META)
    before = path.read_bytes()
    network.fc.bias[2] = np.nan
    with pytest.raises(UserError, match=r"a\.ckpt: tensor fc\.bias has 1 of 5 values .* before it are kept"):
        save_weights(path, network, META)
    assert path.read_bytes() == before
    monkeypatch.setattr("src.training.checkpoint.check_finite", lambda *_: None)
    save_weights(path, network, META)
    monkeypatch.undo()
    with pytest.raises(UserError, match=r"a\.ckpt: tensor fc\.bias has 1 of 5 values that are not finite"):
        load_weights(Tiny(), path)


def test_failed_write_keeps_the_old_file(tmp_path):
    """Protects what is there: an error half way, a full disk; no litter is left, that of a kill is swept."""
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    full = tmp_path / "full.ckpt"
    save_weights(full, nn.Dense(300, 300), META)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"cannot write .*full\.ckpt: File too large"):
            save_weights(full, nn.Dense(300, 300), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert read_checkpoint(full)[1] == META
    full.unlink()
    (tmp_path / "last.ckpt.tmp-123.ckpt").write_text("half")
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(UserError, match=r"cannot write .*a\.txt/b\.ckpt: Not a directory"):
        save_weights(path / "b.ckpt", Tiny(), META)
