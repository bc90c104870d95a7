# SPDX-License-Identifier: Apache-2.0
"""Images as people have them: which files are taken, what is said of the others, and that resizing is Pillow's."""

import dataclasses
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from data_folder import batches, epoch, photo
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_exported import write_onnx

from src.config import DataConfig
from src.data import create_dataset, iterate, load_image, preprocessing
from src.data.check_data import check_data
from src.data.crops import CentreCrop, RandomCrop
from src.data.image_files import decode
from src.data.image_folder import list_images
from src.data.packing import Packing
from src.deploy.running.images import find_images, others_below
from src.device import World
from src.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
PLAIN = {"mean": [0.0] * 3, "std": [1.0] * 3}


def sixteen_bits(pixels):
    """Return a PNG file of grey pixels uint16 (H, W)."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.fixture
def refused_by_all(data, folder, tmp_path):
    """Return `check(content, message)`: no reader of images takes this content, and each says so."""

    def check(content, message):
        for split in ("train", "val"):
            path = folder / split / "ant" / "0.JPEG"
            path.write_bytes(content)
            with pytest.raises(UserError, match=rf"image {path} {message}"):
                batches(dataclasses.replace(data, batch_size=1), 16, 3, split)
            with pytest.raises(UserError, match=rf"image {path} {message}"):
                list(Packing(list_images(folder / split), tmp_path / "packed" / split).run())
            with pytest.raises(UserError, match=rf"image {path} {message}"):
                load_image(path, preprocessing(data, 16, 3))
        with pytest.raises(UserError, match=r"1 damaged image\(s\)"):
            check_data(data, ("val",), World(), lambda values, world: values)

    return check


@pytest.mark.parametrize("highest", [60, 4095, 65535])
def test_sixteen_bits_are_refused(refused_by_all, highest):
    """Of 16 bits the upper 8 would be taken: dark and 12-bit images would be black. Refused everywhere, in one line."""
    pixels = np.linspace(0, highest, 64).astype(np.uint16).reshape(8, 8)
    refused_by_all(sixteen_bits(pixels), r"has 16 bits a channel, of which 8 would be lost; convert it to 8 bits")


def test_a_tiff_is_refused_whatever_its_name(refused_by_all, tmp_path):
    """One rule for all that reads images: the content decides, not the name."""
    photo(1).save(tmp_path / "x.tif")
    refused_by_all(
        (tmp_path / "x.tif").read_bytes(), "is not a JPEG, PNG, BMP or WebP image; convert, replace or remove"
    )


def test_kinds_of_files(data, folder, capfd):
    """.jfif and .jpe are JPEG files, WebP is read; other images are counted, litter of systems is not."""
    for number, (ending, form) in enumerate([("jfif", "JPEG"), ("jpe", "JPEG"), ("webp", "WEBP"), ("WebP", "WEBP")]):
        photo(number).save(folder / "val" / "ant" / f"more{number}.{ending}", form)
    for name in ("a.tif", "b.TIF", "c.gif", "notes.txt"):
        (folder / "val" / "bee" / name).touch()
    for name in ("._0.jpg", "Thumbs.db", ".hidden.png"):
        (folder / "val" / "cat" / name).write_bytes(b"no image")
    for name in ("__MACOSX", ".thumbnails", "@eaDir"):
        (folder / "val" / name).mkdir()
        (folder / "val" / "cat" / name).mkdir()
        photo(0).save(folder / "val" / name / "x.png")
        photo(0).save(folder / "val" / "cat" / name / "x.png")
    listed = list_images(folder / "val")
    assert listed.classes == ["ant", "bee", "cat"] and np.bincount(listed.labels).tolist() == [9, 5, 5]
    line = f"{folder / 'val'}: passed over 3 images that are not JPEG, PNG, BMP or WebP (1 .gif, 2 .tif)"
    assert listed.notes() == [line]
    assert len(epoch(data, 16, 3, "val")[0]) == 19
    assert len(list(find_images(folder / "val"))) == 19 and others_below(folder / "val") == line
    check_data(data, ("val",), World(), lambda values, world: values)
    said = capfd.readouterr().err
    assert line in said and "19/19 images" in said
    assert list_images(folder / "val").notes() == [line]
    assert Packing(list_images(folder / "val"), folder / "packed" / "val").images == 19


def test_webp_from_shards(data, folder):
    """A packed WebP file gives the pixels of the file."""
    path = folder / "val" / "ant" / "0.JPEG"
    photo(4).save(path, "WEBP")
    list(Packing(list_images(folder / "val"), folder / "packed" / "val").run())
    expected = load_image(path, preprocessing(data, 16, 3))
    packed = dataclasses.replace(data, data_dir=str(folder / "packed"))
    np.testing.assert_array_equal(epoch(packed, 16, 3, "val")[0][0], expected)


def test_alpha_is_dropped(tmp_path):
    """What is transparent shows the colour that stands in the file, as in published evaluations."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 4), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    loaded = load_image(tmp_path / "x.png", preprocessing(DataConfig(resize=16, **PLAIN), 16, 3))
    np.testing.assert_allclose(255 * loaded.transpose(1, 2, 0), pixels[..., :3], atol=1e-4)


def turned_photo(path, tag):
    """Write a photo, 40 x 30, whose tag says how it is to be turned; returns its pixels as they lie."""
    image = photo(3, (40, 30))
    exif = Image.Exif()
    exif[0x0112] = tag
    image.save(path, exif=exif, quality=95)
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize("tag", [1, 3, 6, 8])
def test_orientation(data, folder, tag, capfd):
    """data.orientation applies the EXIF tag or leaves the pixels as they lie, in all readers, and says of how many."""
    path = folder / "val" / "ant" / "0.JPEG"
    pixels = turned_photo(path, tag)
    ignoring = dataclasses.replace(data, resize=30, batch_size=15, **PLAIN)
    quarter_turns = {1: 0, 3: 2, 6: 3, 8: 1}[tag]
    for orientation, expected in (("ignore", pixels), ("apply", np.rot90(pixels, quarter_turns))):
        config = dataclasses.replace(ignoring, orientation=orientation)
        top, left = (expected.shape[0] - 30) // 2, (expected.shape[1] - 30) // 2
        expected = expected[top : top + 30, left : left + 30].transpose(2, 0, 1)
        np.testing.assert_allclose(255 * load_image(path, preprocessing(config, 30, 3)), expected, atol=1e-4)
        capfd.readouterr()
        np.testing.assert_allclose(255 * epoch(config, 30, 3, "val")[0][0], expected, atol=1e-4)
        is_counted = orientation == "ignore" and tag > 1
        line = "1 images lie otherwise than their EXIF tag says; data.orientation apply turns them"
        assert (f"{folder / 'val'}: {line}" in capfd.readouterr().err) == is_counted
        check_data(config, ("val",), World(), lambda values, world: values)
        assert (line in capfd.readouterr().err) == is_counted


def test_infer_says_what_it_passed_over(tmp_path):
    """`infer.py` on a folder counts the images of other kinds and those that lie on their side."""
    (tmp_path / "images").mkdir()
    turned_photo(tmp_path / "images" / "a.jpg", 6)
    (tmp_path / "images" / "b.tif").touch()
    command = [sys.executable, ROOT / "infer.py", "--model", write_onnx(tmp_path / "x.onnx"), "--image", "images"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "images/a.jpg" in done.stdout, done.stderr
    assert done.stderr.splitlines() == [
        "images: passed over 1 images that are not JPEG, PNG, BMP or WebP (1 .tif)",
        "images: 1 images lie otherwise than their EXIF tag says; data.orientation apply turns them",
    ]


@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    more=st.integers(0, 12),
    kind=st.sampled_from([("bilinear", Image.BILINEAR), ("bicubic", Image.BICUBIC)]),
)
@settings(max_examples=60)
def test_evaluation_is_pillows(width, height, size, more, kind):
    """Scaled to cover the input, then its centre, as torchvision does it with Pillow; for a square its very numbers."""
    image, resize = photo(1, (width, height)), min(size) + more
    cropped = CentreCrop(size, resize, kind[0])(image)
    assert cropped.size == size[::-1]
    if size[0] == size[1]:
        short, long = sorted((width, height))
        scaled = (resize, resize * long // short) if width <= height else (resize * long // short, resize)
        left, top = (scaled[0] - size[1]) // 2, (scaled[1] - size[0]) // 2
        expected = image.resize(scaled, kind[1]).crop((left, top, left + size[1], top + size[0]))
        np.testing.assert_array_equal(np.asarray(cropped), np.asarray(expected))


@given(width=st.integers(1, 300), height=st.integers(1, 300), position=st.integers(0, 10**7), rows=st.integers(1, 3))
@settings(max_examples=100)
def test_random_parts(width, height, position, rows):
    """A part lies in the image, has the asked area and proportions where the image allows, and follows its position."""
    crop = RandomCrop((8 * rows, 16), (0.2, 0.8), (0.5, 2.0), "bilinear", (1, 2))
    left, top, across, down = part = crop.part(width, height, np.random.default_rng([1, 2, position]))
    assert part == crop.part(width, height, np.random.default_rng([1, 2, position]))
    assert 0 <= left <= left + across <= width and 0 <= top <= top + down <= height and across > 0 and down > 0
    if min(width, height) > 60 and max(width, height) < 2 * min(width, height):
        ratio = across / down * rows / 2
        assert 0.19 < across * down / (width * height) < 0.81 and 0.48 < ratio < 2.09
    image = photo(2, (width, height))
    assert crop(image, position).size == (16, 8 * rows)


def test_training_resizes_as_pillow_does(tmp_path):
    """The recipes' interpolation reaches training: the part of a large photo, averaged over what shrinks."""
    (tmp_path / "train" / "a").mkdir(parents=True)
    image = photo(1, (600, 450))
    image.save(tmp_path / "train" / "a" / "x.png")
    for name, kind in (("bilinear", Image.BILINEAR), ("bicubic", Image.BICUBIC)):
        data = DataConfig(data_dir=str(tmp_path), batch_size=1, hflip=0.0, interpolation=name, **PLAIN)
        part = RandomCrop((16, 24), data.crop_scale, data.crop_ratio, name, ()).part
        left, top, across, down = part(600, 450, np.random.default_rng([5, 1, 0]))
        expected = np.asarray(image.crop((left, top, left + across, top + down)).resize((24, 16), kind))
        made = epoch(data, (16, 24), 3, "train", seed=5, epoch=1)[0][0]
        np.testing.assert_allclose(255 * made, expected.transpose(2, 0, 1), atol=1e-4)


def test_rectangles(data, folder):
    """A rectangular input gets rectangular batches, in training, evaluation and inference."""
    for split in ("train", "val"):
        assert batches(data, (12, 20), 3, split)[0][0].shape == (4, 3, 12, 20)
    (pixels, _), *_ = iterate(create_dataset(data, (12, 20), 3, "val", as_pixels=True))
    assert pixels.shape == (4, 12, 20, 3)
    grey = dataclasses.replace(data, mean=[0.5], std=[0.5])
    (pixels, _), *_ = iterate(create_dataset(grey, (12, 20), 1, "val", as_pixels=True))
    assert pixels.shape == (4, 12, 20, 1)


def test_first_of_several_pictures():
    """Of an animation the first picture is taken."""
    import io

    buffer = io.BytesIO()
    first, second = Image.new("RGB", (8, 8), (200, 0, 0)), Image.new("RGB", (8, 8), (0, 200, 0))
    first.save(buffer, "WEBP", save_all=True, append_images=[second], lossless=True)
    assert decode(buffer.getvalue())[0].getpixel((0, 0)) == (200, 0, 0)
