# SPDX-License-Identifier: Apache-2.0
"""Packed images and masks: a segmenter sees exactly what it sees of the folders, and no damage goes unnoticed."""

import dataclasses
import hashlib
import json
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from data_folder import classes_of
from PIL import Image
from shell import ROOT
from tiny_training import changed

from src.config import DataConfig, load_config
from src.data import iterate
from src.data.packing import Packing, check
from src.data.records import open_records, read_manifest
from src.device import World
from src.errors import UserError
from src.tasks import create_task

NAMES = ["2", "10", "deeper/a b", "é", "z"]
CLASS_NAMES = "sky\nsea\t#0000ff\nsand\n"


def write_pairs(root):
    for number, (split, count) in enumerate((("training", 5), ("validation", 3))):
        for index, name in enumerate(NAMES[:count]):
            random = np.random.default_rng([number, index])
            height, width = 40 + 8 * index, 60 - 4 * index
            image, mask = (root / kind / split / name for kind in ("images", "annotations"))
            for path in (image, mask):
                path.parent.mkdir(parents=True, exist_ok=True)
            pixels = Image.fromarray(random.integers(0, 256, (5, 6, 3), np.uint8)).resize((width, height))
            pixels.save(f"{image}.{'png' if index == 1 else 'jpg'}")
            Image.fromarray(random.integers(0, 4, (height, width), np.uint8)).save(f"{mask}.png")
    (root / "class_names.txt").write_text(CLASS_NAMES)
    return root


@pytest.fixture
def source(tmp_path):
    return write_pairs(tmp_path / "folder")


def config_file(folder, data_dir):
    path = folder / "pairs.yaml"
    path.write_text(
        f"""
        task: segmentation
        model: {{name: acmix_resnet26, head: fpn, num_classes: 3, image_size: 64}}
        data: {{data_dir: {data_dir}, batch_size: 2, num_workers: 2}}
        segmentation: {{scale: [64, 80], scale_range: [0.5, 2.0], class_names: class_names.txt}}
        """
    )
    return path


@pytest.fixture
def config(source, tmp_path):
    return load_config(config_file(tmp_path, source))


def pack(config, target, shard_size=2):
    task = create_task(config)
    for split in ("train", "val"):
        list(Packing(task.list_files(split), target / split, shard_size).run())
    shutil.copy(Path(config.data.data_dir, "class_names.txt"), target)
    return changed(config, data={"data_dir": str(target)})


def batches(config, split, world, epoch=0):
    task = create_task(config)
    task.open_to_train()
    return [[part.asnumpy() for part in batch] for batch in iterate(task.batches(split, world, epoch))]


@pytest.mark.parametrize("split", ["train", "val"])
def test_batches_are_the_same_in_both_forms(config, tmp_path, split):
    """Bit for bit, over all workers, whatever the number of threads: a run may change from one form to the other."""
    packed, made = pack(config, tmp_path / "packed"), 0
    for rank in range(2):
        first = batches(config, split, World(rank, 2), epoch=3)
        for threads in (1, 2):
            second = batches(changed(packed, data={"num_workers": threads}), split, World(rank, 2), epoch=3)
            assert len(first) == len(second) > 0
            for one, other in zip(first, second):
                for part, same in zip(one, other):
                    np.testing.assert_array_equal(part, same)
                    assert part.dtype == same.dtype
        made += sum(len(label) for *_, label in first)
    assert made == {"train": 4, "val": 3}[split]
    # A set that writes itself is not written into its packed form.
    create_task(changed(packed, data={"name": "scenes"})).open_to_train()
    assert not (tmp_path / "packed" / "checksum.txt").exists()
    # A worker beyond the images has none, in either form.
    assert not batches(packed, "val", World(3, 4)) and not batches(config, "val", World(3, 4))


def test_a_stopped_packing_goes_on(source, config, tmp_path):
    """What is packed stays; a mask that was replaced meanwhile is no part of the same."""
    listed = create_task(config).list_files("train")
    target = tmp_path / "packed"
    packing = Packing(listed, target, 2)
    run = packing.run()
    while packing.packed < 2:
        next(run)
    run.close()
    with pytest.raises(UserError, match="2 of 5 images packed; run"):
        open_records(target)
    before = (target / "shard-00000.mindrecord").stat()
    again = Packing(listed, target)
    assert (again.packed, sum(again.run())) == (2, 3)
    assert (target / "shard-00000.mindrecord").stat() == before
    assert sum(check(open_records(target))) == 5
    mask = source / "annotations" / "training" / "10.png"
    mask.write_bytes(mask.read_bytes() + b"\0")
    with pytest.raises(UserError, match=r"packed from other images than .*training has now \(see shard-00000"):
        Packing(listed, target)


def another_size(path):
    Image.new("L", (3, 2)).save(path)


def out_of_range(path):
    Image.fromarray(np.full_like(np.asarray(Image.open(path)), 77)).save(path)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("annotations/training/z.png", another_size, "mask {} has 3 x 2 pixels"),
        ("annotations/training/z.png", out_of_range, "mask {} has the value 77 but the largest class is 3"),
        ("annotations/training/z.png", cut, "mask {} is no PNG, or truncated"),
        ("images/training/z.jpg", cut, "image {} is truncated or damaged"),
    ],
)
def test_a_damaged_pair_is_named(source, config, tmp_path, file, damage, said):
    """What a training would stop at stops the packing, before the shard of it is written."""
    path = source / file
    damage(path)
    with pytest.raises(UserError, match=re.escape(said.format(path))):
        pack(config, tmp_path / "packed")
    assert len(read_manifest(tmp_path / "packed" / "train").shards) == 1


def test_check_data_reads_every_record(config, tmp_path, capsys):
    """Of packed pairs, too: a bit that changed, and masks that mean something else by the settings of now."""
    packed = pack(config, tmp_path / "packed")
    create_task(packed).check(("train", "val"), World())
    with pytest.raises(UserError, match=r"^8 image\(s\) or mask\(s\) cannot be used, named above"):
        create_task(changed(packed, model={"num_classes": 2})).check(("train", "val"), World())
    said = capsys.readouterr().err
    assert f"mask {tmp_path}/packed/train/deeper/a b.png has the value 3 but the largest class is 2" in said
    with pytest.raises(UserError, match=r"packed/val/.*\.png has the value 3 but"):
        batches(changed(packed, model={"num_classes": 2}, segmentation={"class_names": ""}), "val", World())
    shard = tmp_path / "packed" / "val" / "shard-00000.mindrecord"
    content = bytearray(shard.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged shards in .*val: shard-00000\.mindrecord"):
        create_task(packed).check(("val",), World())


def test_the_command(source, tmp_path):
    """It packs what the configuration says, with the names and colours of the classes; and other forms are refused."""
    target, path = tmp_path / "packed", config_file(tmp_path, source)

    def run(*words):
        command = [sys.executable, ROOT / "scripts" / "create_mindrecord.py", *map(str, words)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)

    done = run("--config", path, "--output_dir", target)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "packing train  5/5 images\npacking val  3/3 images\n"
    assert (target / "class_names.txt").read_text() == CLASS_NAMES
    assert "val: all 3 images are as they were packed" in run("--output_dir", target, "--check").stdout
    with pytest.raises(UserError, match="with file, mask_file, image, mask in each record, but this takes file, label"):
        classes_of(DataConfig(data_dir=str(target)), "val")
    done = run("--config", path, "--output_dir", tmp_path / "other", "--segmentation.class_names", "x.txt")
    assert done.returncode == 2 and f"cannot read {source}/x.txt" in done.stderr and not (tmp_path / "other").exists()
    done = run("--data_dir", source, "--output_dir", target, "--data.batch_size", 2)
    assert (done.returncode, done.stderr[:41]) == (2, "error: unknown argument --data.batch_size")
    with pytest.raises(UserError, match="split test is none of segmentation, which has train and val"):
        create_task(load_config(path)).list_files("test")


def test_the_benchmark_of_pairs(source, config, tmp_path):
    """Both forms are measured beside OpenCV, which does as much: it scales, cuts and keeps image and mask together."""
    packed = pack(config, tmp_path / "packed").data.data_dir
    script, path = ROOT / "scripts" / "benchmark_data.py", config_file(tmp_path, source)
    command = [sys.executable, script, "--config", path, "--packed_dir", packed, "--rounds", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    head, _, *rows = done.stdout.splitlines()
    assert head.startswith("4 images a turn")
    names = ["OpenCV, the same steps", "training, folder", "training, MindRecord"]
    assert [row.split("  ")[0] for row in rows] == names and all(float(row.split()[-1][:-1]) > 0 for row in rows)
    listed = create_task(config).list_files("train")
    flat = changed(config, segmentation={"distortion": False}, data={"hflip": 1.0}, model={"image_size": [32, 40]})
    _, prepare = create_task(flat).yardstick()
    for position in range(listed.images):
        values = 60 * np.asarray(Image.open(listed.mask_path(position)))
        Image.fromarray(values).convert("RGB").save(listed.path(position), "PNG")
        image, mask = prepare(listed, position)
        assert image.shape[:2] == mask.shape and mask.shape[0] <= 32 and mask.shape[1] <= 40
        # As far as the image is not blended between two pixels.
        assert np.corrcoef(image[..., 0].ravel(), mask.ravel())[0, 1] > 0.4


def test_manifests_of_earlier_versions(tmp_path):
    """Images that were packed before pairs were: their manifest says no columns, and its sums are those of now."""
    source, target = tmp_path / "folder" / "train", tmp_path / "packed" / "train"
    for name in ("ant", "bee"):
        (source / name).mkdir(parents=True)
        Image.new("RGB", (4, 4), (len(name), 0, 9)).save(source / name / "1.png")
    config = changed(load_config(ROOT / "config" / "resnet50_imagenet.yaml"), data={"data_dir": str(source.parent)})
    listed = create_task(config).list_files("train")
    list(Packing(listed, target).run())
    crc32, listing = 0, hashlib.sha256()
    for label, name in enumerate(("ant", "bee")):
        content = (source / name / "1.png").read_bytes()
        crc32 = zlib.crc32(content, zlib.crc32(f"{name}/1.png\0{label}\0".encode(), crc32))
        listing.update(f"{name}/1.png\0{len(content)}\n".encode())
    shard = target / "shard-00000.mindrecord"
    sums = {"size": shard.stat().st_size, "listing": listing.hexdigest(), "crc32": crc32}
    earlier = {"classes": ["ant", "bee"], "images": 2, "shard_size": 10_000}
    earlier["shards"] = [{"file": shard.name, "images": 2, **sums}]
    written = json.loads((target / "manifest.json").read_text())
    (target / "manifest.json").write_text(json.dumps(earlier))
    assert classes_of(dataclasses.replace(config.data, data_dir=str(target.parent)), "train").names == ["ant", "bee"]
    assert sum(check(open_records(target))) == 2
    again = Packing(listed, target)
    assert again.packed == 2 and not list(again.run())
    assert json.loads((target / "manifest.json").read_text()) == written
