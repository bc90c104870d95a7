# SPDX-License-Identifier: Apache-2.0
"""The IDX files of MNIST and its relatives: what is read from them, and how one that cannot be right is named.

How their images are cropped and shared out: test_decoded_files.py.
"""

import dataclasses
import gzip
from pathlib import Path

import numpy as np
import pytest
from data_folder import classes_of, epoch, trained_classes
from idx_files import idx, write_split

from src.config import DataConfig, load_config
from src.data.image_folder import list_split
from src.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 28, 28), np.uint8)
LABELS = np.arange(12) % 3


@pytest.fixture
def data(tmp_path):
    """Twelve images of three classes, training ones compressed."""
    write_split(tmp_path, "train", PIXELS, LABELS, gzip.compress)
    write_split(tmp_path, "t10k", PIXELS, LABELS)
    return DataConfig("mnist", str(tmp_path), val_split="t10k", mean=[0.0], std=[1.0])


def test_same_images_compressed_or_not(data):
    """Both forms hold the same images and labels; classes are called by their labels, or as data.class_names says."""
    for split in ("train", "val"):
        listed = list_split(data, split)
        np.testing.assert_array_equal(listed.pixels, PIXELS)
        np.testing.assert_array_equal(listed.labels, LABELS)
        assert listed.counts().tolist() == [4, 4, 4]
    assert trained_classes(data, 3).names == ["0", "1", "2"]
    named = dataclasses.replace(data, class_names=["shirt", "bag", "boot", "never seen"])
    assert classes_of(named, "val").names == named.class_names


def test_grey_stays_as_it_is(tmp_path):
    """All 256 levels reach a network of one channel unchanged, in the middle of black pixels."""
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    write_split(tmp_path, "t10k", levels, [0])
    words = ["--data_dir", str(tmp_path), "--data.mean", "[0]", "--data.std", "[1]", "--data.resize", "16"]
    data = load_config(ROOT / "config" / "acmix_resnet_fashion.yaml", words).data
    images, _ = epoch(data, 32, 1, "val")
    np.testing.assert_array_equal((255 * images[0, 0]).round(), np.pad(levels[0], 8))


def test_emnist_is_turned_upright(tmp_path):
    """EMNIST's files hold rows and columns exchanged, and several of its sets lie in one folder."""
    write_split(tmp_path, "emnist-digits-train", PIXELS.swapaxes(1, 2), LABELS, gzip.compress)
    write_split(tmp_path, "emnist-letters-train", PIXELS[:3], LABELS[:3], gzip.compress)
    listed = list_split(DataConfig("mnist", str(tmp_path), train_split="emnist-digits-train"), "train")
    np.testing.assert_array_equal([listed.image(position) for position in range(12)], PIXELS)


@pytest.mark.parametrize(
    ("kind", "content", "message"),
    [
        ("images-idx3", idx(LABELS), "images-idx3-ubyte holds labels, not images"),
        ("labels-idx1", idx(PIXELS), "labels-idx1-ubyte holds images, not labels"),
        ("images-idx3", idx(PIXELS)[:-1], r"9407 bytes after its head, which says 12 x 28 x 28: it is damaged"),
        ("images-idx3", idx(PIXELS)[:11], "images-idx3-ubyte is no IDX file of bytes, or damaged"),
        ("images-idx3", b"<html>", "images-idx3-ubyte is no IDX file of bytes"),
        ("images-idx3", gzip.compress(idx(PIXELS))[:-1], "images-idx3-ubyte is truncated or damaged"),
        ("images-idx3", gzip.compress(idx(PIXELS))[:-8] + b"12345678", "images-idx3-ubyte is truncated or damaged"),
        ("images-idx3", idx(PIXELS[:5]), "has 5 images but its labels are 12"),
        ("labels-idx1", idx(LABELS + 1), "has the label 3 but data.class_names names 3 classes, 0 to 2"),
        ("labels-idx1", None, r"cannot read .*t10k-labels-idx1-ubyte \(No such file.* as it is or as \.gz"),
    ],
    ids=[
        *("labels", "images", "a byte less", "half a head", "a web page", "gzip cut", "gzip damaged", "fewer images"),
        *("a label without a name", "missing"),
    ],
)
def test_a_file_that_cannot_be_right_is_named(data, kind, content, message):
    """Exchanged, truncated, damaged and missing files, each with the mend, before anything is trained."""
    path = Path(data.data_dir, f"t10k-{kind}-ubyte")
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        list_split(dataclasses.replace(data, class_names=["shirt", "bag", "boot"]), "val")


def test_a_split_without_images(data):
    """An empty file has the right form but nothing to learn from."""
    write_split(Path(data.data_dir), "t10k", PIXELS[:0], LABELS[:0])
    with pytest.raises(UserError, match="t10k-images-idx3-ubyte has no image"):
        list_split(data, "val")


def test_names_belong_to_these_files():
    """Classes of other data sets have names of their own: a list beside them would be passed over."""
    path = ROOT / "config" / "acmix_resnet_cifar10.yaml"
    with pytest.raises(UserError, match=r"data\.class_names belongs to mnist but data\.name is cifar10"):
        load_config(path, ["--data.class_names", "[ant, bee]"])
    with pytest.raises(UserError, match=r"data\.class_names is .* none twice"):
        load_config(path, ["--data.class_names", "[ant, ant]"])
