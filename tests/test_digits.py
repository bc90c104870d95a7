# SPDX-License-Identifier: Apache-2.0
"""The digits: all of scikit-learn's scans, written whole or not at all."""

import os
from pathlib import Path

import numpy as np
import pytest
from data_folder import trained_classes
from PIL import Image

from src.config import DataConfig
from src.data import create_dataset, digits, iterate
from src.errors import UserError


@pytest.fixture(scope="module")
def digits_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "new" / "folder" / "digits"
    digits.write_digits(path)
    return path


def test_digits(digits_dir):
    """All 1,797 scans, each once, one of five of each class held out, readable as the scans they are."""
    from sklearn.datasets import load_digits

    scans = load_digits()
    names = {split: sorted(path.stem for path in digits_dir.glob(f"{split}/*/*.png")) for split in ("train", "val")}
    assert sorted(names["train"] + names["val"]) == [f"{index:04d}" for index in range(1797)]
    for digit in range(10):
        held_out = len(list(digits_dir.glob(f"val/{digit}/*.png")))
        assert held_out == np.sum(scans.target == digit) // 5
    for path in digits_dir.glob("val/*/*.png"):
        assert path.parent.name == str(scans.target[int(path.stem)])
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("L", (32, 32))
            small = np.asarray(image.resize((8, 8), Image.BOX)) * (16 / 255)
        assert np.corrcoef(small.ravel(), scans.images[int(path.stem)].ravel())[0, 1] > 0.97


def test_digits_are_written_when_absent(tmp_path):
    """data.name digits needs nothing but a place to write to."""
    data = DataConfig(name="digits", data_dir=str(tmp_path / "digits"), mean=[0.306], std=[0.35], resize=32)
    images = np.concatenate([image.asnumpy() for image, _ in iterate(create_dataset(data, 32, 1, "val"))])
    assert images.shape == (355, 1, 32, 32)
    assert abs(images.mean()) < 0.1 and abs(images.std() - 1) < 0.1
    assert trained_classes(data, 10).names == [str(digit) for digit in range(10)]


def test_written_digits_are_left_alone(digits_dir, monkeypatch):
    """A second call writes nothing, not even aside."""
    monkeypatch.delattr(digits, "_write_images")
    digits.write_digits(digits_dir)


def test_interrupted_digits_leave_nothing(tmp_path, monkeypatch):
    """A run that is stopped half-way leaves no folder that could pass for the digits, and the next one succeeds."""
    saved = []

    def stop(image, path):
        saved.append(path)
        if len(saved) == 1000:
            raise KeyboardInterrupt
        Path(path).write_bytes(b"")

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Image.Image, "save", stop)
        digits.write_digits(tmp_path / "digits")
    assert os.listdir(tmp_path) == []
    digits.write_digits(tmp_path / "digits")
    assert len(list(tmp_path.glob("digits/*/*/*.png"))) == 1797


def test_two_workers_write_digits(tmp_path, digits_dir, monkeypatch):
    """The worker that comes second finds the folder of the first and takes it."""
    monkeypatch.setattr(digits, "_write_images", lambda scratch: (scratch / "x").mkdir(parents=True))
    real = os.rename

    def rename(source, target):
        Path(target).symlink_to(digits_dir)
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    digits.write_digits(tmp_path / "digits")
    assert os.listdir(tmp_path) == ["digits"]


def test_digits_do_not_overwrite(tmp_path):
    """A folder that holds something else is refused, not filled or replaced."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(UserError, match="mine"):
        digits.write_digits(tmp_path / "mine")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "thesis.txt"]
