# SPDX-License-Identifier: Apache-2.0
"""From image files to batches: what is read, in which order, how it is prepared, and how bad folders end."""

import dataclasses
import io

import numpy as np
import pytest
from data_folder import COLOURS, EXTENSIONS, batches, classes_of, epoch, photo, trained_classes
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from src.config import DataConfig
from src.data import create_dataset, load_image, preprocessing
from src.data.image_folder import list_images
from src.data.packing import Packing
from src.errors import UserError

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def test_training_batches(data):
    """Types, shapes, labels after the sorted folder names, normalisation; an incomplete batch stays out."""
    made = batches(data, 16, 3, "train")
    assert [image.shape for image, _ in made] == [(4, 3, 16, 16)] * 3
    for image, label in made:
        assert (image.dtype, label.dtype) == (np.float32, np.int32)
        pixels = image.transpose(0, 2, 3, 1) * STD + MEAN
        expected = np.array(list(COLOURS.values()))[label][:, None, None] / 255
        np.testing.assert_allclose(pixels, np.broadcast_to(expected, pixels.shape), atol=0.01)


def cmyk_jpeg(image, ink):
    """Return a JPEG of cyan, magenta, yellow and black as Adobe's programs write it: direct, or as YCCK."""
    stream = io.BytesIO()
    image.convert("CMYK").save(stream, "JPEG", quality=95)
    content = stream.getvalue()
    # The last byte of Adobe's marker says which of the two the numbers are.
    place = content.index(b"Adobe") + 11
    assert content[place] == 0
    return content[:place] + {"CMYK": b"\0", "YCCK": b"\2"}[ink] + content[place + 1 :]


@pytest.mark.parametrize("form", ["CMYK", "YCCK", "PNG", "palette", "grey"])
def test_odd_files_of_imagenet(tmp_path, form):
    """JPEGs of four inks and a PNG named .JPEG give, whole or cropped, folder or packed, the colours that PIL sees."""
    path = tmp_path / "folder" / "train" / "a" / "x.JPEG"
    path.parent.mkdir(parents=True)
    image = photo(3, (48, 40))
    if form in ("CMYK", "YCCK"):
        path.write_bytes(cmyk_jpeg(image, form))
    else:
        image.convert({"PNG": "RGB", "palette": "P", "grey": "L"}[form]).save(path, "PNG")
    list(Packing(list_images(tmp_path / "folder" / "train"), tmp_path / "packed" / "train").run())
    rgb = Image.open(path).convert("RGB")
    expected = np.asarray(rgb).transpose(2, 0, 1)[:, :, 4:44] / 255
    twin = tmp_path / "twin" / "train" / "a" / "x.png"
    twin.parent.mkdir(parents=True)
    rgb.save(twin)
    data = DataConfig(batch_size=1, resize=40, mean=[0.0] * 3, std=[1.0] * 3, val_split="train")
    np.testing.assert_allclose(load_image(path, preprocessing(data, 40, 3)), expected, atol=1e-6)
    crops, _ = epoch(dataclasses.replace(data, data_dir=str(tmp_path / "twin")), 24, 3, "train")
    for source in ("folder", "packed"):
        of_source = dataclasses.replace(data, data_dir=str(tmp_path / source))
        np.testing.assert_allclose(epoch(of_source, 40, 3, "val")[0][0], expected, atol=1e-6)
        # A crop of a JPEG decodes no more than it needs, so that its edges may differ.
        assert np.abs(epoch(of_source, 24, 3, "train")[0] - crops).mean() < 2 / 255


def test_own_folders(tmp_path):
    """Classes with any names, links among them, and files of several kinds: labels follow the sorted names."""
    names = ["猫 и кошка", "a b", "Zebra", "1.5", "ünïcode"]
    for split in ("train", "val"):
        for number, name in enumerate(sorted(names)):
            (tmp_path / split / name).mkdir(parents=True)
            for index, ending in enumerate(EXTENSIONS):
                Image.new("L", (20, 20), 50 * number).save(tmp_path / split / name / f"фото {index}{ending}")
    data = DataConfig(data_dir=str(tmp_path), batch_size=5, mean=[0.0] * 3, std=[1.0] * 3)
    assert trained_classes(data, 5).names == sorted(names)
    for split in ("train", "val"):
        images, labels = epoch(data, 16, 3, split)
        assert len(images) == 25
        np.testing.assert_allclose(images[:, 0, 8, 8], labels * 50 / 255, atol=0.01)
    (tmp_path / "val" / "a b" / "deeper").mkdir()
    photo(1).save(tmp_path / "val" / "a b" / "deeper" / "x.png")
    with pytest.raises(UserError, match=r"images of class a b lie deeper, in .*a b/deeper; move or link them"):
        trained_classes(data, 5)


def test_hidden_folders_and_other_files_are_passed_over(data, folder):
    """A .cache folder, a text file and a stray file beside the classes neither count nor shift the labels."""
    (folder / "train" / ".cache").mkdir()
    photo(0).save(folder / "train" / ".cache" / "x.jpg")
    (folder / "train" / "ant" / "notes.txt").write_text("no image")
    (folder / "train" / "readme.jpg").write_text("no image")
    _, labels = epoch(dataclasses.replace(data, batch_size=15), 16, 3, "train")
    assert sorted(labels) == [0] * 5 + [1] * 5 + [2] * 5


@pytest.mark.parametrize("form", ["folder", "packed"])
@pytest.mark.parametrize("workers", [1, 2, 4, 17])
def test_evaluation_counts_every_image_once(data, folder, workers, form):
    """Over all workers, more than images too, each image comes once, and only the last batch of a worker is short."""
    if form == "packed":
        list(Packing(list_images(folder / "val"), folder / "packed" / "val").run())
        data = dataclasses.replace(data, data_dir=str(folder / "packed"))
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
        "image_size": [24, 24],
        "resize": 32,
        "interpolation": "bilinear",
        "orientation": "ignore",
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
    # Twice as wide as high: squeezed to a square.
    wide = photo(1, (64, 32))
    wide.save(tmp_path / "train" / "a" / "x.png")
    pixels = np.asarray(wide.resize((32, 32), Image.BILINEAR)).transpose(2, 0, 1) / 255
    whole = dataclasses.replace(data, hflip=0.0, crop_scale=[1.0, 1.0], crop_ratio=[2.0, 2.0])
    np.testing.assert_allclose(epoch(whole, 32, 3, "train")[0][0], pixels, atol=1e-5)


def test_crop_with_padding(tmp_path):
    """crop_padding takes the place of scaled crops: the pixels themselves, moved, with black where nothing is."""
    (tmp_path / "train" / "a").mkdir(parents=True)
    image = photo(1, (16, 16))
    image.save(tmp_path / "train" / "a" / "x.png")
    data = DataConfig(data_dir=str(tmp_path), batch_size=1, hflip=0.0, crop_padding=2, mean=[0.0] * 3, std=[1.0] * 3)
    padded = np.pad(np.asarray(image).transpose(2, 0, 1) / 255, [(0, 0), (2, 2), (2, 2)])
    crops = [padded[:, y : y + 16, x : x + 16] for y in range(5) for x in range(5)]
    for number in range(4):
        crop, _ = epoch(data, 16, 3, "train", epoch=number)
        assert min(np.abs(crop[0] - other).max() for other in crops) < 1e-5


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


def test_linked_class_folder(data, folder):
    """A class folder may be a link, as in subsets made of links."""
    (folder / "train" / "ant").rename(folder / "elsewhere")
    (folder / "train" / "ant").symlink_to(folder / "elsewhere")
    assert classes_of(data, "train").names == list(COLOURS)
    assert sorted(epoch(dataclasses.replace(data, batch_size=15), 16, 3, "train")[1]) == [0] * 5 + [1] * 5 + [2] * 5


def test_folder_mistakes(data, folder):
    """Each mistake in the layout is one line that names the folder."""

    def refused(message, config=data, classes=3):
        with pytest.raises(UserError, match=message):
            trained_classes(config, classes)

    assert trained_classes(data, 3).names == ["ant", "bee", "cat"]
    refused(r"train has 3 classes but model\.num_classes is 1000; give --model\.num_classes 3", classes=1000)
    refused("no data folder given; add --data_dir", dataclasses.replace(data, data_dir=""))
    refused("nowhere/train.*No such file", dataclasses.replace(data, data_dir="nowhere"))
    refused("val2.*No such file", dataclasses.replace(data, val_split="val2"))
    refused("ant/0.JPEG.*Not a directory", dataclasses.replace(data, train_split="train/ant/0.JPEG"))
    refused("train/ant has no class folders", dataclasses.replace(data, train_split="train/ant"))
    (folder / "val" / "dog").mkdir()
    assert trained_classes(data, 3).names == ["ant", "bee", "cat"]
    photo(1).save(folder / "val" / "dog" / "1.png")
    refused("class 'dog' is in .*val but not in .*train, so nothing could learn it")
    (folder / "train" / "dog").mkdir()
    refused(
        r"train/dog has no image; fill it, or remove it, there and in .*val, and give --model\.num_classes 3", classes=4
    )
    refused("train/dog has no image; fill it, or remove it, there and in [^,]*val$")


def test_too_few_images(data):
    """A batch that never fills is refused, not answered with no batch."""
    with pytest.raises(UserError, match=r"train has 15 images .* data\.batch_size"):
        create_dataset(dataclasses.replace(data, batch_size=16), 16, 3, "train")
    with pytest.raises(UserError, match="train has 15 images but 4 worker"):
        create_dataset(data, 16, 3, "train", world_size=4)
