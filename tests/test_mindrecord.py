# SPDX-License-Identifier: Apache-2.0
"""Packed images: training sees exactly what it sees of the folder, and neither a stop nor damage goes unnoticed."""

import dataclasses
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import mindspore.dataset as ds
import numpy as np
import pytest
from data_folder import classes_of, trained_classes
from PIL import Image

from src.config import DataConfig
from src.data import create_dataset, image_folder, iterate, packing
from src.data.image_folder import list_images
from src.data.packing import Packing, check
from src.data.records import open_records, read_manifest
from src.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
# In the order of labels: "ant-2" sorts behind "ant", but "ant-2/x" before "ant/x".
CLASSES = ["ant", "ant-2", "bee é"]
NAMES = ["1.png", "10.JPEG", "2.jpg", "B.bmp", "a b.jpg"]
RECIPE = {"randaugment": 9, "random_erasing": 0.5, "mixup": 0.8, "cutmix": 1.0, "interpolation": "bicubic"}


def write_images(root):
    for split in ("train", "val"):
        for label, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for index, file in enumerate(NAMES):
                pixels = np.random.default_rng(100 * label + index).integers(0, 256, (4, 4, 3), dtype=np.uint8)
                Image.fromarray(pixels).resize((200, 150), Image.BICUBIC).save(root / split / name / file, quality=95)
    return root


def pack(source, target, shard_size=4):
    for split in ("train", "val"):
        list(Packing(list_images(source / split), target / split, shard_size).run())
    return target


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A folder and its packed form, as settings."""
    root = tmp_path_factory.mktemp("both")
    pack(write_images(root / "folder"), root / "packed")
    return [DataConfig(data_dir=str(root / form), batch_size=4) for form in ("folder", "packed")]


@pytest.fixture
def source(tmp_path):
    return write_images(tmp_path / "folder")


def stamps(folder):
    """What changes when a file is written again; a new file may get the inode of a deleted one."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


def batches(*args, **kwargs):
    return [(image.asnumpy(), label.asnumpy()) for image, label in iterate(create_dataset(*args, **kwargs))]


def assert_same(first, second):
    assert len(first) == len(second) > 0
    for one, other in zip(first, second):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
        assert one[1].dtype == other[1].dtype


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("recipe", [{}, RECIPE], ids=["plain", "published"])
def test_an_epoch_is_the_same_in_both_forms(both, recipe, channels):
    """Bit for bit, over all workers: a run may change from one form to the other."""
    of_channels = {"mean": [0.5] * channels, "std": [0.2] * channels}
    folder, packed = (dataclasses.replace(data, **recipe, **of_channels, batch_size=2) for data in both)
    for rank in range(2):
        where = {"rank": rank, "world_size": 2, "seed": 3, "epoch": 2}
        first = batches(folder, 16, channels, "train", **where)
        assert_same(first, batches(packed, 16, channels, "train", **where))
        assert len(first) == 3


@pytest.mark.parametrize("workers", [1, 4])
def test_evaluation_is_the_same_in_both_forms(both, workers):
    """Each image once over all workers, prepared alike, the short last batch too."""
    images = 0
    for rank in range(workers):
        first, second = (batches(data, 16, 3, "val", rank, workers) for data in both)
        assert_same(first, second)
        images += sum(len(label) for _, label in second)
    assert images == 15


def test_class_names_are_kept(both):
    """What training, evaluation and export call the classes does not depend on the form."""
    assert [classes_of(data, "val").names for data in both] == [CLASSES] * 2
    assert [trained_classes(data, 3).names for data in both] == [CLASSES] * 2
    with pytest.raises(UserError, match=r"model\.num_classes is 7"):
        trained_classes(both[1], 7)


def test_records_are_the_files(both):
    """The bytes of each file as they are, with label and name, in the order of the folder; readable for all."""
    folder, packed = (Path(data.data_dir, "train") for data in both)
    shards = open_records(packed).shards
    assert [shard.images for shard in shards] == [4, 4, 4, 3]
    paths = [str(packed / shard.file) for shard in shards]
    rows = ds.MindDataset(paths, ["file", "label", "image"], shuffle=False)
    rows = [(str(f), int(k), i.tobytes()) for f, k, i in rows.create_tuple_iterator(num_epochs=1, output_numpy=True)]
    files = [(f"{name}/{file}", label) for label, name in enumerate(CLASSES) for file in NAMES]
    assert rows == [(file, label, (folder / file).read_bytes()) for file, label in files]
    modes = {path.stat().st_mode for path in packed.iterdir()}
    assert modes == {(folder / files[0][0]).stat().st_mode}


def test_a_stopped_packing_goes_on(source, both, tmp_path):
    """What is packed stays, what was begun leaves nothing, and the result is that of a packing without a stop."""
    target = tmp_path / "packed" / "train"
    packing = Packing(list_images(source / "train"), target, 4)
    run = packing.run()
    while packing.packed < 8:
        next(run)
    run.close()
    data = dataclasses.replace(both[1], data_dir=str(target.parent))
    with pytest.raises(UserError, match=r"8 of 15 images packed; run scripts/create_mindrecord\.py again"):
        create_dataset(data, 16, 3, "train")
    before = stamps(target)
    assert not any(name.startswith(".") for name in before)
    # A killed run could not tidy up.
    (target / ".packing-dead").mkdir()
    (target / ".packing-dead" / "shard-00002.mindrecord").write_bytes(b"half")

    again = Packing(list_images(source / "train"), target)
    assert (again.packed, again.images) == (8, 15)
    assert sum(again.run()) == 7
    after = stamps(target)
    assert len(after) == 9
    assert {name for name in before if before[name] != after[name]} == {"manifest.json"}
    whole = read_manifest(Path(both[1].data_dir, "train"))
    assert dataclasses.replace(read_manifest(target), folder=whole.folder) == whole

    assert sum(Packing(list_images(source / "train"), target).run()) == 0
    assert {name: stamp for name, stamp in stamps(target).items() if name != "manifest.json"}.items() <= after.items()


def test_other_images_are_not_mixed_in(source, tmp_path):
    """Shards of one folder are not completed with another's, nor another folder's content overwritten."""
    target = pack(source, tmp_path / "packed")

    def refused(message, shard_size=None, target=target / "train"):
        with pytest.raises(UserError, match=message):
            Packing(list_images(source / "train"), target, shard_size)

    refused("has 4 images a shard; leave --shard_size out", shard_size=5)
    refused("ant holds something else", target=source / "train" / "ant")
    image = source / "train" / "ant" / "2.jpg"
    content = image.read_bytes()
    image.write_bytes(content + b"\0")
    refused(r"packed from other images than .*train has now \(see shard-00000\.mindrecord\)")
    image.write_bytes(content)
    image.rename(image.with_name("3.jpg"))
    refused("packed from other images")
    image.with_name("3.jpg").rename(image)
    (source / "train" / "cat").mkdir()
    image.rename(source / "train" / "cat" / "z.jpg")
    refused("packed from other images")


@pytest.mark.parametrize("length", [300, -9], ids=["before its pixels", "in its pixels"])
def test_a_damaged_image_is_named_and_can_be_removed(source, tmp_path, length):
    """It stops the packing before its shard is written; without it the packing goes on behind what it has.

    MindSpore dies of a JPEG that ends before its pixels, without a message.
    """
    image = source / "train" / "ant-2" / "a b.jpg"
    image.write_bytes(image.read_bytes()[:length])
    target = tmp_path / "packed" / "train"
    with pytest.raises(UserError, match=r"ant-2/a b\.jpg is truncated or damaged"):
        list(Packing(list_images(source / "train"), target, 4).run())
    assert len(read_manifest(target).shards) == 2
    image.unlink()
    assert sum(Packing(list_images(source / "train"), target).run()) == 6
    assert sum(check(open_records(target))) == 14


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_damaged_record_is_named(source, tmp_path, split, monkeypatch):
    """Training and evaluation name the image, which MindSpore does not."""
    monkeypatch.chdir(tmp_path)
    image = source / split / "bee é" / "2.jpg"
    image.write_bytes(image.read_bytes()[:1500])
    monkeypatch.setattr(image_folder, "decode_file", lambda *_: None)
    target = pack(source, tmp_path / "packed")
    data = DataConfig(data_dir=str(target), batch_size=1, crop_scale=[1.0, 1.0])
    with pytest.raises(UserError) as error:
        batches(data, 16, 3, split)
    assert f"image {target / split}/bee é/2.jpg is truncated or damaged" in str(error.value)
    assert "\n" not in str(error.value)
    assert not Path("abnormal_image.jpg").exists()


def test_a_programming_error_passes(both):
    """With sound records, an error keeps its own words."""
    broken = create_dataset(both[1], 16, 3, "val").map(lambda label: 1 // 0, "label")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        list(iterate(broken))


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[content.index(b"\xff\xd8\xff") + 200] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [flip_a_bit, lambda path: Path(f"{path}.db").write_bytes(b"SQLite format 3")])
def test_check_finds_damage_and_only_that_is_packed_again(source, tmp_path, damage):
    """A bit of an image, which decodes all the same, or the index: the shard is named, deleted, made anew."""
    target = pack(source, tmp_path / "packed") / "train"
    assert sum(check(open_records(target))) == 15
    before, manifest = stamps(target), read_manifest(target)
    shard = target / "shard-00002.mindrecord"
    damage(shard)
    with pytest.raises(UserError, match=r"damaged shards in .*train: shard-00002\.mindrecord; delete them"):
        list(check(open_records(target)))
    shard.unlink()
    assert sum(Packing(list_images(source / "train"), target).run()) == 4
    assert sum(check(open_records(target))) == 15
    changed = {name for name, stamp in stamps(target).items() if stamp != before[name]}
    assert changed == {"manifest.json", shard.name, f"{shard.name}.db"}
    assert read_manifest(target) == manifest


def test_an_unreadable_shard_while_training(source, tmp_path):
    """A file whose size is right and whose index is not ends as one line."""
    target = pack(source, tmp_path / "packed")
    (target / "val" / "shard-00001.mindrecord.db").write_bytes(b"SQLite format 3")
    with pytest.raises(UserError, match=r"a shard of .*val cannot be read; .*--check names it"):
        batches(DataConfig(data_dir=str(target), batch_size=4), 16, 3, "val")


def test_an_incomplete_copy_is_refused(source, tmp_path):
    """Before training begins: a shard cut short, its index or itself missing, a manifest that is none."""
    folder = pack(source, tmp_path / "packed") / "train"
    data = DataConfig(data_dir=str(folder.parent), batch_size=4)
    shard, manifest = folder / "shard-00003.mindrecord", folder / "manifest.json"
    os.truncate(shard, shard.stat().st_size - 1)
    with pytest.raises(UserError, match=r"shard-00003\.mindrecord or its \.db file is missing or incomplete"):
        create_dataset(data, 16, 3, "train")
    Path(f"{folder}/shard-00000.mindrecord.db").unlink()
    with pytest.raises(UserError, match=r"shard-00000.*missing"):
        create_dataset(data, 16, 3, "train")
    for content in ("", "[]", "{}", json.dumps({"shards": [1]}), json.dumps({"shards": [], "images": 3})):
        manifest.write_text(content)
        with pytest.raises(UserError, match=r"manifest\.json is not a whole manifest"):
            create_dataset(data, 16, 3, "train")


def test_a_disk_without_room(source, tmp_path, monkeypatch):
    """Said before anything is packed, and where it fills up meanwhile; nothing half-written stays."""
    target = tmp_path / "packed" / "train"
    with monkeypatch.context() as patch:
        patch.setattr(packing.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
        with pytest.raises(UserError, match=r"0\.0 GB free; make room"):
            list(Packing(list_images(source / "train"), target, 4).run())

    def fail(_):
        raise RuntimeError("MindSpore says no reason")

    monkeypatch.setattr(packing.FileWriter, "commit", fail)
    with pytest.raises(UserError, match="the disk is full or failing"):
        list(Packing(list_images(source / "train"), target, 4).run())
    assert os.listdir(target) == ["manifest.json"]


def test_what_does_not_read_back_is_not_counted(source, tmp_path, monkeypatch):
    """A shard that the disk gives back otherwise than it was written never gets its name."""
    target = tmp_path / "packed" / "train"
    write = packing.FileWriter.write_raw_data

    def garbled(self, records):
        records[1]["image"] = records[1]["image"][:-1] + b"?"
        return write(self, records)

    monkeypatch.setattr(packing.FileWriter, "write_raw_data", garbled)
    with pytest.raises(UserError, match="does not read back as it was written"):
        list(Packing(list_images(source / "train"), target, 4).run())
    assert os.listdir(target) == ["manifest.json"]


def run(*words, script="create_mindrecord.py"):
    command = [sys.executable, ROOT / "scripts" / script, *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_command(source, tmp_path):
    """Both splits are packed, class names too, and checked, with plain lines off a terminal; mistakes: exit code 2."""
    target = tmp_path / "packed"
    (source / "class_names.txt").write_text("ant\tan ant\n")
    done = run("--data_dir", source, "--output_dir", target)
    assert done.returncode == 0, done.stderr
    assert classes_of(DataConfig(data_dir=str(target)), "val").names[0] == "an ant"
    assert done.stderr == "packing train  15/15 images\npacking val  15/15 images\n"
    assert done.stdout.count("15 images in 1 shards") == 2
    flip_a_bit(target / "val" / "shard-00000.mindrecord")
    done = run("--output_dir", target, "--check")
    assert done.returncode == 2 and "train: all 15 images" in done.stdout
    assert done.stderr.endswith("delete them and pack again, only they are made\n")
    for words, said in (
        (["--data_dir", source, "--output_dir", target, "--split", "test"], "cannot list data folder"),
        (["--output_dir", target], "give --data_dir"),
    ):
        done = run(*words)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and said in done.stderr, done.stderr


def test_the_bar(source, tmp_path):
    """On a terminal the progress is a bar."""
    watcher, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    command = [sys.executable, ROOT / "scripts" / "create_mindrecord.py", "--data_dir", source, "--split", "train"]
    job = subprocess.run([*command, "--output_dir", tmp_path / "packed"], stderr=terminal, stdout=subprocess.PIPE)
    os.close(terminal)
    assert job.returncode == 0
    shown = b""
    while b"100%" not in shown:
        shown += os.read(watcher, 65536)
    assert b"packing train: 100%" in shown


def test_the_benchmark_of_the_data(both):
    """Both forms are measured beside the bare decode; what is no folder of images is refused."""
    folder, packed = (data.data_dir for data in both)
    words = ["--config", "config/acmix_resnet_digits.yaml", "--data.name", "image_folder", "--data.batch_size", 4]
    words += [
        "--model.in_channels",
        3,
        "--model.num_classes",
        3,
        "--data.mean",
        "[0, 0, 0]",
        "--data.std",
        "[1, 1, 1]",
        "--rounds",
        2,
    ]
    done = run(*words, "--data_dir", folder, "--packed_dir", packed, script="benchmark_data.py")
    assert done.returncode == 0, done.stderr
    head, _, *rows = done.stdout.splitlines()
    assert head.startswith("12 images a turn")
    assert [row.split("  ")[0] for row in rows] == [
        "OpenCV decode and crop",
        "training, folder",
        "training, MindRecord",
    ]
    assert rows[0].endswith("1.00x   1.00x") and all(float(row.split()[-1][:-1]) > 0 for row in rows)
    done = run(*words, "--data_dir", packed, script="benchmark_data.py")
    assert done.returncode == 2 and "has no class folders" in done.stderr
