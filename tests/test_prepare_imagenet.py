# SPDX-License-Identifier: Apache-2.0
"""ImageNet as it is handed out becomes a folder to train on: by the kit's own numbers, by links, as often as one likes.

The development kit here has three classes, in the form of the real one.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from data_folder import classes_of, trained_classes
from PIL import Image
from scipy.io import savemat

from src.config import DataConfig
from src.data.class_names import name_classes
from src.data.image_folder import list_images
from src.data.imagenet import link_imagenet, read_development_kit
from src.data.packing import Packing
from src.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
# The kit's numbers are in another order than the folders.
CLASSES = {1: ("n03", "crane"), 2: ("n01", "tench, Tinca tinca"), 3: ("n02", "crane")}
NAMES = {"n01": "tench, Tinca tinca", "n02": "crane (n02)", "n03": "crane (n03)"}


def write_kit(folder, truth):
    synset = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("gloss", object)]
    synset += [("num_children", object), ("children", object), ("wordnet_height", object), ("num_train_images", object)]
    rows = [(number, wnid, words, "a thing", 0, [], 0, 2) for number, (wnid, words) in CLASSES.items()]
    rows.append((4, "n00", "entity", "all of them", 3, [1, 2, 3], 1, 0))
    (folder / "data").mkdir(parents=True)
    savemat(folder / "data" / "meta.mat", {"synsets": np.array(rows, dtype=synset)[:, None]})
    lines = "".join(f"{number}\n" for number in truth)
    (folder / "data" / "ILSVRC2012_validation_ground_truth.txt").write_text(lines)


@pytest.fixture
def parts(tmp_path):
    """train/, flat val/ and the development kit; the grey of a validation image says its class."""
    truth = np.random.default_rng(0).permutation(np.repeat(list(CLASSES), 50)).tolist()
    write_kit(tmp_path / "kit", truth)
    (tmp_path / "val").mkdir()
    for number, its in enumerate(truth, 1):
        Image.new("L", (8, 8), 50 * its).save(tmp_path / "val" / f"ILSVRC2012_val_{number:08d}.JPEG")
    for wnid, _ in CLASSES.values():
        (tmp_path / "train" / wnid).mkdir(parents=True)
        for number in range(2):
            Image.new("L", (8, 8)).save(tmp_path / "train" / wnid / f"{wnid}_{number}.JPEG")
    return tmp_path


def prepare(parts, output="out"):
    work = link_imagenet(read_development_kit(parts / "kit", 3), parts / "train", parts / "val", parts / output)
    assert sum(work) == 153
    return parts / output


def links(folder):
    return {path: (os.readlink(path), path.lstat().st_ino) for path in folder.rglob("*") if path.is_symlink()}


def test_every_image_is_in_its_class(parts):
    """Fifty of each, in the folder that the kit's numbering says, all of them links that hold if both are moved."""
    (parts / "all").mkdir()
    out = prepare(parts, "all/out")
    for number, (wnid, _) in CLASSES.items():
        images = list((out / "val" / wnid).iterdir())
        assert len(images) == 50 and all(path.is_symlink() for path in images)
        assert {Image.open(path).getpixel((0, 0)) for path in images} == {50 * number}
        assert len(list((out / "train" / wnid).iterdir())) == 2
    assert not any(os.path.isabs(target) for target, _ in links(out).values())
    data = DataConfig(data_dir=str(out))
    assert trained_classes(data, 3).names == classes_of(data, "val").names == list(NAMES.values())


def test_run_again(parts):
    """Nothing is done twice, and what is missing, wrong or left of a stopped run is mended."""
    out = prepare(parts)
    before = links(out)
    prepare(parts)
    assert links(out) == before
    first, second = list((out / "val" / "n01").iterdir())[:2]
    first.unlink()
    second.unlink()
    second.symlink_to("nowhere")
    (out / "train" / "n02").unlink()
    shutil.rmtree(out / "val" / "n03")
    (out / "class_names.txt").unlink()
    prepare(parts)
    assert {path: target for path, (target, _) in links(out).items()} == {
        p: target for p, (target, _) in before.items()
    }
    assert name_classes(out, list(NAMES)) == list(NAMES.values())


def test_missing_pieces_are_named(parts):
    """Images, classes and tables that are not there, and archives that are not unpacked: one line with the mend."""

    def refused(message):
        with pytest.raises(UserError, match=message):
            prepare(parts)
        assert not (parts / "out" / "class_names.txt").exists()

    missing = parts / "val" / "ILSVRC2012_val_00000007.JPEG"
    missing.rename(parts / "aside")
    refused(r"--val_dir: .*val lacks 1 of 150 images: ILSVRC2012_val_00000007\.JPEG; complete it")
    (parts / "val" / "ILSVRC2012_img_val.tar").touch()
    refused(r"unpack the archive first: tar -xf ILSVRC2012_img_val\.tar -C .*val$")
    (parts / "aside").rename(missing)
    (parts / "train" / "n02").rename(parts / "aside")
    refused(r"--train_dir: .*train lacks 1 of 3 class folders: n02")
    (parts / "train" / "n02.tar").touch()
    refused(r"unpack the archive first: cd .*train && for f in \*\.tar")
    (parts / "aside").rename(parts / "train" / "n02")
    # An archive that was kept beside what was in it does no harm.
    prepare(parts)
    (parts / "out" / "class_names.txt").unlink()

    (parts / "out" / "val" / "n01" / "mine.txt").touch()
    refused(r"val/n01 holds something else, mine\.txt")
    (parts / "kit" / "data" / "meta.mat").write_text("no table")
    refused(r"meta\.mat is no table of ImageNet's classes")
    (parts / "kit" / "data" / "meta.mat").unlink()
    refused(r"cannot read .*meta\.mat")
    (parts / "kit").rename(parts / "gone")
    refused("--devkit_dir: cannot list .*kit")
    (parts / "kit").touch()
    refused(r"unpack the archive first: tar -xzf ILSVRC2012_devkit_t12\.tar\.gz")


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ([1, 2, 3] * 49, r"147 validation images of 3 classes, but takes 3 and 50 of each"),
        ([1] * 51 + [2] * 50 + [3] * 49, "150 validation images of 3 classes, but"),
        ([1, 2] * 75, "150 validation images of 2 classes, but"),
        ([1, 2, 4] * 50, r"truth\.txt: 4 is no class"),
        ([1, 2, "x"] * 50, r"truth\.txt: .*'x' is no class"),
    ],
)
def test_counts_are_verified(tmp_path, truth, message):
    """A ground truth that lacks images, or has not fifty of each class, is not taken for the whole."""
    write_kit(tmp_path, truth)
    with pytest.raises(UserError, match=message):
        read_development_kit(tmp_path, 3)


def test_names_stay_with_the_packed_form(parts):
    """Names are looked up beside the splits, whatever their form; a line without a tab is named."""
    out = prepare(parts)
    list(Packing(list_images(out / "val"), parts / "packed" / "val").run())
    shutil.copy(out / "class_names.txt", parts / "packed")
    data = DataConfig(data_dir=str(parts / "packed"))
    assert classes_of(data, "val").names == list(NAMES.values())
    (parts / "packed" / "class_names.txt").write_text("n01 tench\n")
    with pytest.raises(UserError, match=r"class_names\.txt, line 1: takes the folder of a class, a tab and its name"):
        classes_of(data, "val")


def test_the_command(parts):
    """It reports the counts, notes where the training images are not those of the kit, and takes 1000 classes."""
    (parts / "train" / "n02" / "n02_0.JPEG").unlink()
    words = [sys.executable, ROOT / "scripts" / "prepare_imagenet.py"]
    words += ["--train_dir", parts / "train", "--val_dir", parts / "val", "--devkit_dir", parts / "kit"]
    words += ["--output_dir", parts / "out"]
    done = subprocess.run([*words, "--classes", "3"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    note, report = done.stdout.splitlines()
    assert note == "note: n02 has 1 training images, not 2 as the development kit says"
    assert report.endswith("out: 3 classes, 5 training images, 150 validation images, 50 of each class")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "takes 1000 and 50 of each" in done.stderr
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
