# SPDX-License-Identifier: Apache-2.0
"""Image files that cannot be read are named in one line, found before training, and left out where that is asked."""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from data_folder import batches, epoch, photo

from src.config import DataConfig
from src.data import create_dataset, iterate, load_image, preprocessing
from src.data.check_data import check_data, count_left_out
from src.data.image_folder import list_images
from src.data.packing import Packing
from src.device import World
from src.errors import UserError

ROOT = Path(__file__).resolve().parent.parent


def cut(content):
    return content[: len(content) // 2]


DAMAGE = {
    "truncated.jpg": ("JPEG", cut, "is truncated or damaged"),
    "truncated.JPEG": ("JPEG", lambda content: content[:20], "is truncated or damaged"),
    "truncated.png": ("PNG", cut, "is truncated or damaged"),
    "truncated.bmp": ("BMP", cut, "is truncated or damaged"),
    "text. (1).jpg": ("JPEG", lambda _: b"this is text, not a picture", "is not a JPEG, PNG, BMP or WebP image"),
    "empty.jpg": ("JPEG", lambda _: b"", "is empty"),
    "renamed.jpg": ("GIF", lambda content: content, "is not a JPEG, PNG, BMP or WebP image"),
}


@pytest.fixture(params=DAMAGE)
def damaged(request, folder, monkeypatch):
    """One damaged file among the images of both splits: its name and what is wrong with it."""
    monkeypatch.chdir(folder)
    form, damage, reason = DAMAGE[request.param]
    for split in ("train", "val"):
        path = folder / split / "bee" / request.param
        photo(5, (200, 150)).save(path, form)
        path.write_bytes(damage(path.read_bytes()))
    return request.param, reason


@pytest.mark.parametrize("split", ["train", "val"])
def test_damaged_file_is_named(data, damaged, split):
    """Training and evaluation stop with one line that names the file, and leave nothing behind."""
    name, reason = damaged
    with pytest.raises(UserError) as error:
        batches(dataclasses.replace(data, batch_size=1), 16, 3, split)
    message = str(error.value)
    assert f"{data.data_dir}/{split}/bee/{name} {reason}" in message
    assert "\n" not in message and "replace or remove it" in message
    assert not [name for name in os.listdir() if "image" in name]


def test_damaged_file_for_inference(data, damaged):
    """A single file is refused in the same words."""
    name, reason = damaged
    path = Path(data.data_dir, "val", "bee", name)
    with pytest.raises(UserError) as error:
        load_image(path, preprocessing(data, 16, 3))
    assert f"image {path} {reason}" in str(error.value)
    assert "\n" not in str(error.value)
    assert not [name for name in os.listdir() if "image" in name]


@pytest.mark.parametrize("length", [300, -2])
def test_a_jpeg_without_its_end_for_inference(tmp_path, length):
    """A JPEG that ends between its size and its pixels is refused, and so is one that lacks its last two bytes."""
    photo(5).save(tmp_path / "x.jpg")
    (tmp_path / "x.jpg").write_bytes((tmp_path / "x.jpg").read_bytes()[:length])
    with pytest.raises(UserError, match=r"x\.jpg is truncated or damaged"):
        load_image(tmp_path / "x.jpg", preprocessing(DataConfig(), 16, 3))


def test_missing_image_for_inference(data, tmp_path):
    """A missing file and a folder are refused by name."""
    for path, words in (
        (tmp_path / "none.jpg", "cannot read image {}: No such file"),
        (tmp_path, "image {} is no file"),
    ):
        with pytest.raises(UserError, match=words.format(path)):
            load_image(path, preprocessing(data, 16, 3))


def test_unreadable_entries_are_named(data, folder):
    """A link that leads nowhere and a folder named like an image end as one line, too."""
    link = folder / "val" / "ant" / "link.jpg"
    link.symlink_to("nowhere")
    with pytest.raises(UserError, match=r"cannot read image .*link\.jpg: No such file"):
        batches(data, 16, 3, "val")
    link.unlink()
    link.mkdir()
    with pytest.raises(UserError, match=r"image .*link\.jpg is no file"):
        batches(data, 16, 3, "val")


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_folder_that_disappears(data, folder, split):
    """An unmounted or deleted data folder ends the epoch, and would end the next one, in one line."""
    for path in list(folder.glob(f"{split}/bee/*")) * 20:
        shutil.copy(path, path.with_name(f"{len(os.listdir(path.parent))}{path.suffix}"))
    images = iterate(create_dataset(data, 16, 3, split))
    next(images)
    folder.rename(f"{folder} elsewhere")
    with pytest.raises(UserError) as error:
        list(images)
    assert str(error.value).startswith(f"data folder {folder} is gone (reading {folder}/{split}/")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=f"cannot list data folder {folder}/{split}"):
        create_dataset(data, 16, 3, split)


def test_other_errors_pass(data):
    """Only errors about a file are translated: a programming error keeps its own words."""
    broken = create_dataset(data, 16, 3, "val").map(lambda label: 1 // 0, "label")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        list(iterate(broken))


def alone(values, world):
    """The sum over the workers of a job of one."""
    return values


@pytest.fixture
def with_damage(folder):
    """Two damaged images to train on and one to evaluate on."""
    bad = [folder / "train" / "ant" / "0.JPEG", folder / "train" / "cat" / "1.jpg", folder / "val" / "bee" / "2.PNG"]
    photo(9).save(bad[1])
    for path, length in zip(bad, (100, 300, 300)):
        path.write_bytes(path.read_bytes()[:length])
    return bad


def test_damaged_files_are_named_before_training(data, with_damage, capfd):
    """Each with the reason, then one line that says how to go on; a sound folder passes."""
    with pytest.raises(UserError, match=r"3 damaged image\(s\) in .* named above; .* add --data\.damaged_list FILE"):
        check_data(data, ("train", "val"), World(), alone)
    said = capfd.readouterr().err.splitlines()
    assert [line for line in said if line.startswith("checking")] == [
        "checking train  15/15 images",
        "checking val  15/15 images",
    ]
    assert len([line for line in said if line.startswith("image ")]) == 3
    for path in with_damage:
        assert any(line.startswith(f"image {path} is truncated or damaged") for line in said)
        path.unlink()
    check_data(data, ("train",), World(), alone)


@pytest.mark.parametrize("words", [["train.py"], ["eval.py", "--checkpoint", "none.ckpt"]])
def test_the_check_of_the_scripts(data, with_damage, words):
    """`--check_data` ends with one line and exit code 2 before anything else is looked at."""
    command = [sys.executable, *words, "--config", "config/resnet26_imagenet.yaml", "--check_data"]
    command += ["--data_dir", data.data_dir, "--output_dir", "nowhere"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    said = done.stderr.splitlines()
    assert done.returncode == 2 and said[-1].startswith("error: ") and "named above" in said[-1], done.stderr
    assert sum(line.startswith("image ") for line in said) == (3 if words == ["train.py"] else 1)
    assert not (ROOT / "nowhere").exists()


def test_damaged_files_are_left_out(data, folder, with_damage, tmp_path):
    """Workers share the check, agree on the list, and never see what it names; every other image comes as before."""
    named = dataclasses.replace(data, damaged_list=str(tmp_path / "lists" / "damaged.txt"), batch_size=1)

    def is_damaged(values, world):
        bad = {str(path.relative_to(folder / "train")) for path in with_damage[:2]}
        names = sorted(str(path.relative_to(folder / "train")) for path in folder.glob("train/*/*"))
        # What this worker found is among what all found.
        share = {names[position] for position in np.flatnonzero(values)}
        assert share == {name for name in bad if names.index(name) % 2 == world.rank}
        return np.array([name in bad for name in names], np.float32)

    # A check looks at all images, also where fewer are trained on.
    few = dataclasses.replace(named, train_limit=1)
    for rank in range(2):
        check_data(few, ("train",), World(rank, 2), is_damaged)
    # A check of the other split keeps what is known of this one.
    check_data(named, ("val",), World(), alone)
    lines = Path(named.damaged_list).read_text().splitlines()
    assert lines == ["train/ant/0.JPEG", "train/cat/1.jpg", "val/bee/2.PNG"]
    expected = "2 of 15 images of train, 1 of 15 images of val"
    for data_of in (named, few):
        assert count_left_out(data_of, ("train", "val")).endswith(f"({named.damaged_list}): {expected}")
    cases = [(split, rank, 2, 5, 1) for split in ("train", "val") for rank in range(2)]
    seen = [epoch(named, 16, 3, *case) for case in cases]
    for path in with_damage:
        path.unlink()
    for case, (images, labels) in zip(cases, seen):
        expected, expected_labels = epoch(dataclasses.replace(named, damaged_list=""), 16, 3, *case)
        np.testing.assert_array_equal(labels, expected_labels)
        np.testing.assert_array_equal(images, expected)


def test_a_list_that_cannot_be_used(data, folder, tmp_path):
    """A missing list, one that cannot be written, and one for images that have no files, are refused."""
    missing = dataclasses.replace(data, damaged_list=str(tmp_path / "none.txt"))
    with pytest.raises(UserError, match=r"cannot read data\.damaged_list .*none\.txt .*--check_data makes it"):
        create_dataset(missing, 16, 3, "train")
    blocked = dataclasses.replace(data, damaged_list=str(folder / "train" / "ant" / "0.JPEG" / "x"))
    with pytest.raises(UserError, match=r"cannot write data\.damaged_list"):
        check_data(blocked, ("val",), World(), alone)
    list(Packing(list_images(folder / "train"), tmp_path / "packed" / "train").run())
    check_data(dataclasses.replace(data, data_dir=str(tmp_path / "packed")), ("train",), World(), alone)
    (tmp_path / "some.txt").write_text("train/ant/0.JPEG\n")
    packed = dataclasses.replace(data, data_dir=str(tmp_path / "packed"), damaged_list=str(tmp_path / "some.txt"))
    with pytest.raises(UserError, match=r"some\.txt names images of .*packed/train, which has no files"):
        create_dataset(packed, 16, 3, "train")
