# SPDX-License-Identifier: Apache-2.0
"""From image files to batches: what is read, in which order, how it is prepared, and how bad folders and files end."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from src.config import DataConfig
from src.data import check_image_folder, class_names, create_dataset, iterate, load_image, preprocessing
from src.errors import UserError

COLOURS = {"ant": (200, 30, 30), "bee": (30, 200, 30), "cat": (30, 30, 200)}
EXTENSIONS = [".JPEG", ".jpg", ".PNG", ".bmp", ".Jpg"]
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def photo(seed, size=(60, 48)):
    """Return a smooth random picture: compresses like a photo, has no symmetry."""
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.BICUBIC)


@pytest.fixture
def folder(tmp_path):
    """Three classes of five images each, in train and val, with every accepted file type."""
    for split in ("train", "val"):
        for label, (name, colour) in enumerate(COLOURS.items()):
            (tmp_path / split / name).mkdir(parents=True)
            for index, extension in enumerate(EXTENSIONS):
                image = photo(100 * label + index) if split == "val" else Image.new("RGB", (40, 30), colour)
                image.save(tmp_path / split / name / f"{index}{extension}", quality=95)
    return tmp_path


@pytest.fixture
def data(folder):
    return DataConfig(data_dir=str(folder), batch_size=4)


def batches(*args, **kwargs):
    return [(image.asnumpy(), label.asnumpy()) for image, label in iterate(create_dataset(*args, **kwargs))]


def epoch(*args, **kwargs):
    images, labels = zip(*batches(*args, **kwargs))
    return np.concatenate(images), np.concatenate(labels)


def test_training_batches(data):
    """Types, shapes, labels after the sorted folder names, normalisation; an incomplete batch stays out."""
    made = batches(data, 16, 3, "train")
    assert [image.shape for image, _ in made] == [(4, 3, 16, 16)] * 3
    for image, label in made:
        assert (image.dtype, label.dtype) == (np.float32, np.int32)
        pixels = image.transpose(0, 2, 3, 1) * STD + MEAN
        expected = np.array(list(COLOURS.values()))[label][:, None, None] / 255
        np.testing.assert_allclose(pixels, np.broadcast_to(expected, pixels.shape), atol=0.01)


def test_hidden_folders_and_other_files_are_passed_over(data, folder):
    """A .cache folder, a text file and a stray file beside the classes neither count nor shift the labels."""
    (folder / "train" / ".cache").mkdir()
    photo(0).save(folder / "train" / ".cache" / "x.jpg")
    (folder / "train" / "ant" / "notes.txt").write_text("no image")
    (folder / "train" / "readme.jpg").write_text("no image")
    _, labels = epoch(dataclasses.replace(data, batch_size=15), 16, 3, "train")
    assert sorted(labels) == [0] * 5 + [1] * 5 + [2] * 5


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_evaluation_counts_every_image_once(data, folder, workers):
    """Over all workers each image comes once, in the short last batch too, and no batch is longer than asked."""
    spec = preprocessing(data, 16, 3)
    expected = [load_image(path, spec) for path in sorted(folder.glob("val/*/*"))]
    seen = []
    for rank in range(workers):
        made = batches(data, 16, 3, "val", rank, workers)
        assert all(len(image) == 4 for image, _ in made[:-1])
        seen += [(label, image.tobytes()) for images, labels in made for image, label in zip(images, labels)]
    assert sorted(seen) == sorted((index // 5, image.tobytes()) for index, image in enumerate(expected))


@pytest.mark.parametrize("resize", [0, 16, 40])
@pytest.mark.parametrize("channels", [1, 3])
def test_load_image_equals_evaluation(data, folder, channels, resize):
    """One file prepared for inference is bit for bit what evaluation sees, in colour and in grey."""
    mean, std = ([0.5], [0.25]) if channels == 1 else (data.mean, data.std)
    data = dataclasses.replace(data, batch_size=15, resize=resize, mean=mean, std=std)
    images, _ = epoch(data, 16, channels, "val")
    paths = sorted(folder.glob("val/*/*"))
    prepared = np.stack([load_image(path, preprocessing(data, 16, channels)) for path in paths])
    assert prepared.shape == (15, channels, 16, 16)
    np.testing.assert_array_equal(prepared, images)


def test_evaluation_geometry(tmp_path):
    """The shorter side is resized and the centre kept: on an image that needs no scaling, the very pixels."""
    image = photo(1, (50, 32))
    image.save(tmp_path / "x.png")
    spec = {
        "image_size": 24,
        "resize": 32,
        "interpolation": "bilinear",
        "mean": MEAN.tolist(),
        "std": STD.tolist(),
        "in_channels": 3,
    }
    pixels = np.asarray(image)[4:28, 13:37] / 255
    np.testing.assert_allclose(
        load_image(tmp_path / "x.png", spec), ((pixels - MEAN) / STD).transpose(2, 0, 1), atol=1e-5
    )


def test_grey_is_luminance(tmp_path):
    """in_channels 1 weighs red, green and blue as the eye does; grey files serve colour networks as well."""
    image = photo(1, (32, 32))
    image.save(tmp_path / "x.png")
    image.convert("L").save(tmp_path / "grey.png")
    spec = preprocessing(DataConfig(resize=32, mean=[0.0], std=[1.0]), 32, 1)
    expected = np.asarray(image) @ [0.299, 0.587, 0.114] / 255
    np.testing.assert_allclose(load_image(tmp_path / "x.png", spec)[0], expected, atol=0.004)
    colour = load_image(tmp_path / "grey.png", {**spec, "mean": [0.0] * 3, "std": [1.0] * 3, "in_channels": 3})
    np.testing.assert_allclose(colour, np.stack([expected] * 3), atol=0.006)


def test_flip_and_crop(tmp_path):
    """hflip, crop_scale and crop_ratio reach the training steps: a whole image, mirrored always or never."""
    (tmp_path / "train" / "a").mkdir(parents=True)
    image = photo(1, (32, 32))
    image.save(tmp_path / "train" / "a" / "x.png")
    data = DataConfig(data_dir=str(tmp_path), batch_size=1, mean=[0.0] * 3, std=[1.0] * 3)
    pixels = np.asarray(image).transpose(2, 0, 1) / 255
    for hflip, expected in ((0.0, pixels), (1.0, pixels[:, :, ::-1])):
        whole = dataclasses.replace(data, hflip=hflip, crop_scale=[1.0, 1.0], crop_ratio=[1.0, 1.0])
        np.testing.assert_allclose(epoch(whole, 32, 3, "train")[0][0], expected, atol=1e-5)
    # Twice as wide as high: squeezed to a square, neighbouring columns are averaged.
    wide = photo(1, (64, 32))
    wide.save(tmp_path / "train" / "a" / "x.png")
    pixels = np.asarray(wide).transpose(2, 0, 1) / 255
    whole = dataclasses.replace(data, hflip=0.0, crop_scale=[1.0, 1.0], crop_ratio=[2.0, 2.0])
    squeezed = epoch(whole, 32, 3, "train")[0][0]
    np.testing.assert_allclose(squeezed, (pixels[:, :, ::2] + pixels[:, :, 1::2]) / 2, atol=0.005)


def test_an_epoch_can_be_repeated(data):
    """Seed and epoch fix order, crops and flips exactly; another epoch or seed has another order."""
    data = dataclasses.replace(data, train_split="val", batch_size=5)
    first = epoch(data, 16, 3, "train", seed=1, epoch=3)
    np.random.seed(0)
    again = epoch(data, 16, 3, "train", seed=1, epoch=3)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    for other in ({"seed": 1, "epoch": 4}, {"seed": 2, "epoch": 3}):
        assert (epoch(data, 16, 3, "train", **other)[1] != first[1]).any()


def test_crops_differ(tmp_path):
    """Another seed, epoch or worker has other crops of the same image."""
    (tmp_path / "train" / "a").mkdir(parents=True)
    for name in ("x.png", "y.png"):
        photo(1).save(tmp_path / "train" / "a" / name)
    data = DataConfig(data_dir=str(tmp_path), batch_size=1, hflip=0.0)
    cases = [{}, {"seed": 1}, {"epoch": 1}, {"rank": 1}]
    crops = {epoch(data, 16, 3, "train", world_size=2, **case)[0].tobytes() for case in cases}
    assert len(crops) == 4


@given(workers=st.integers(1, 7), epoch_number=st.integers(0, 3))
@settings(max_examples=10, deadline=None)
def test_training_shards(tmp_path_factory, workers, epoch_number):
    """Workers get equally many images and none of them twice; one worker's epoch holds every image."""
    root = tmp_path_factory.mktemp("shards")
    (root / "train" / "a").mkdir(parents=True)
    for grey in range(0, 230, 10):
        Image.new("L", (8, 8), grey).save(root / "train" / "a" / f"{grey:03d}.png")
    data = DataConfig(data_dir=str(root), batch_size=1, mean=[0.0], std=[1.0])
    seen = [epoch(data, 8, 1, "train", rank, workers, 0, epoch_number)[0][:, 0, 0, 0] for rank in range(workers)]
    assert [len(part) for part in seen] == [23 // workers] * workers
    values = np.concatenate(seen).round(3)
    assert len(set(values)) == len(values)


@pytest.mark.parametrize("workers", [1, 99])
def test_threads(data, workers):
    """More threads than the machine has cores are cut to what it has."""
    assert len(batches(dataclasses.replace(data, num_workers=workers), 16, 3, "train")) == 3


def cut(content):
    return content[: len(content) // 2]


DAMAGE = {
    "truncated.jpg": ("JPEG", cut, "is truncated or damaged"),
    "truncated.JPEG": ("JPEG", lambda content: content[:20], "is truncated or damaged"),
    "truncated.png": ("PNG", cut, "is truncated or damaged"),
    "truncated.bmp": ("BMP", cut, "is truncated or damaged"),
    "text. (1).jpg": ("JPEG", lambda _: b"this is text, not a picture", "is not a JPEG, PNG or BMP image"),
    "empty.jpg": ("JPEG", lambda _: b"", "is empty"),
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
    """Training and evaluation stop with one line that names the file; MindSpore's copy of it does not stay behind."""
    name, reason = damaged
    # The whole image: a small crop may lie in the part of a truncated JPEG that is there.
    with pytest.raises(UserError) as error:
        batches(dataclasses.replace(data, batch_size=1, crop_scale=[1.0, 1.0]), 16, 3, split)
    message = str(error.value)
    assert f"{data.data_dir}/{split}/bee/{name} {reason}" in message
    assert "\n" not in message and "replace or remove it" in message
    assert not Path("abnormal_image.jpg").exists()


def test_damaged_file_for_inference(data, damaged):
    """A single file is refused in the same words."""
    name, reason = damaged
    path = Path(data.data_dir, "val", "bee", name)
    with pytest.raises(UserError) as error:
        load_image(path, preprocessing(data, 16, 3))
    assert f"image {path} {reason}" in str(error.value)
    assert "\n" not in str(error.value)
    assert not Path("abnormal_image.jpg").exists()


@pytest.mark.parametrize("length", [300, -2])
def test_a_jpeg_without_its_end_for_inference(tmp_path, length):
    """MindSpore dies of a JPEG that ends between its size and its pixels, and accepts one that lacks little."""
    photo(5).save(tmp_path / "x.jpg")
    (tmp_path / "x.jpg").write_bytes((tmp_path / "x.jpg").read_bytes()[:length])
    with pytest.raises(UserError, match=r"x\.jpg is truncated or damaged \(it has no end\)"):
        load_image(tmp_path / "x.jpg", preprocessing(DataConfig(), 16, 3))


def test_missing_image_for_inference(data, tmp_path):
    """A missing file and a folder are refused by name."""
    for path in (tmp_path / "none.jpg", tmp_path):
        with pytest.raises(UserError, match=f"cannot read image {path}"):
            load_image(path, preprocessing(data, 16, 3))


def test_unreadable_entries_are_named(data, folder):
    """A link that leads nowhere and a folder named like an image end as one line, too."""
    link = folder / "val" / "ant" / "link.jpg"
    link.symlink_to("nowhere")
    with pytest.raises(UserError, match=r"link\.jpg cannot be opened \(No such file"):
        batches(data, 16, 3, "val")
    link.unlink()
    link.mkdir()
    with pytest.raises(UserError, match=r"link\.jpg cannot be opened \(Is a directory"):
        batches(data, 16, 3, "val")


def test_other_errors_pass(data):
    """Only errors about a file are translated: a programming error keeps its own words."""
    broken = create_dataset(data, 16, 3, "val").map(lambda label: 1 // 0, "label")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        list(iterate(broken))


def test_linked_class_folder(data, folder):
    """A class folder may be a link, as in subsets made of links."""
    (folder / "train" / "ant").rename(folder / "elsewhere")
    (folder / "train" / "ant").symlink_to(folder / "elsewhere")
    assert class_names(data, "train") == list(COLOURS)
    assert sorted(epoch(dataclasses.replace(data, batch_size=15), 16, 3, "train")[1]) == [0] * 5 + [1] * 5 + [2] * 5


def test_folder_mistakes(data, folder):
    """Each mistake in the layout is one line that names the folder."""

    def refused(message, config=data, classes=3):
        with pytest.raises(UserError, match=message):
            check_image_folder(config, classes)

    assert check_image_folder(data, 3) == ["ant", "bee", "cat"]
    refused(r"train has 3 class folders but model\.num_classes is 1000; give --model\.num_classes 3", classes=1000)
    refused("no data folder given; add --data_dir", dataclasses.replace(data, data_dir=""))
    refused("nowhere/train.*No such file", dataclasses.replace(data, data_dir="nowhere"))
    refused("val2.*No such file", dataclasses.replace(data, val_split="val2"))
    refused("ant/0.JPEG.*Not a directory", dataclasses.replace(data, train_split="train/ant/0.JPEG"))
    refused("train/ant has no class folders", dataclasses.replace(data, train_split="train/ant"))
    (folder / "val" / "dog").mkdir()
    refused("val/dog has no image")
    photo(1).save(folder / "val" / "dog" / "1.png")
    refused("class 'dog' is in .*val but not in .*train")


def test_too_few_images(data):
    """A batch that never fills, and more evaluating workers than images, are refused, not answered with no batch."""
    with pytest.raises(UserError, match=r"train has 15 images .* data\.batch_size"):
        create_dataset(dataclasses.replace(data, batch_size=16), 16, 3, "train")
    with pytest.raises(UserError, match="train has 15 images but 4 worker"):
        create_dataset(data, 16, 3, "train", world_size=4)
    with pytest.raises(UserError, match="val has 15 images but 16 worker"):
        create_dataset(data, 16, 3, "val", rank=15, world_size=16)
