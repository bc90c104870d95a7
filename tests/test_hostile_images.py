# SPDX-License-Identifier: Apache-2.0
"""Damaged and hostile images are named in a line each, and all others classified: no crash, no wait, no full memory."""

import io
import json
import os
import pickle
import struct
import zlib
from functools import partial

import numpy as np
import pytest
from hostile import Evil, bounded, damaged, infer
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_exported import SIZE, SPEC, write_onnx

from src.data.image_files import MOST_PIXELS
from src.data.transforms import eval_transform
from src.deploy.running.images import ImageBatches


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


def encoded(mode, form, **options):
    pixels = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, form, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["jpeg", "progressive jpeg", "grey jpeg", "png", "bmp"])
def test_images(folder, form):
    """Each of many damaged images is classified or named, in order; some of the JPEGs crash MindSpore's decoder."""
    mode, kind = "L" if "grey" in form else "RGB", form.split()[-1]
    content = encoded(mode, kind, **({"progressive": True} if "progressive" in form else {}))
    paths = [folder / f"{number:02d}.{kind}" for number in range(40)]

    @bounded(8)
    @given(st.lists(damaged(content), min_size=len(paths) - 1, max_size=len(paths) - 1))
    def property(contents):
        for path, changed in zip(paths, [*contents, content]):
            path.write_bytes(changed)
        batches = ImageBatches(paths, partial(eval_transform, SPEC), 7, 2)
        read = []
        for names, (images,) in batches:
            assert images.shape == (len(names), 1, SIZE, SIZE) and np.isfinite(images).all()
            read += names
        assert read == sorted(read) and paths[-1] in read
        lost = [path for path in paths if path not in read]
        assert len(lost) == len(batches.unreadable)
        assert all(str(path) in problem for path, problem in zip(lost, batches.unreadable))

    property()


def claiming(width, height):
    """A PNG file of a few bytes that says it has so many pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_images_that_would_fill_the_memory_or_wait(tmp_path):
    """Size is judged by the header, of the image and of what resizing makes of it; a pipe is not read."""
    for name, size in (("a", (50_000, 50_000)), ("b", (12_000, 12_000))):
        (tmp_path / f"{name}.png").write_bytes(claiming(*size))
    Image.new("L", (1, 100_000)).save(tmp_path / "c.png")
    (tmp_path / "d.png").write_bytes(b"")
    os.truncate(tmp_path / "d.png", 5 * MOST_PIXELS)
    os.mkfifo(tmp_path / "e.png")
    (tmp_path / "f.png").symlink_to("nowhere")
    (tmp_path / "g.png").write_bytes(encoded("RGB", "TIFF"))
    (tmp_path / "h.png").write_bytes(pickle.dumps(Evil(tmp_path / "mark")))
    spec = {**SPEC, "resize": 200, "image_size": [128, 128]}
    batches = ImageBatches(sorted(tmp_path.iterdir()), partial(eval_transform, spec), 2, 2)
    assert list(batches) == []
    words = ["pixels", "12000 x 12000 pixels", "1 x 100000 pixels", "bytes", "is no file", "No such file"]
    for word, problem in zip([*words, *["is not a JPEG"] * 2], batches.unreadable, strict=True):
        assert word in problem
    assert not (tmp_path / "mark").exists()


def test_a_folder_with_damaged_images(tmp_path):
    """All others are classified, the damaged ones named at the end in a line each, with exit code 3."""
    model = write_onnx(tmp_path / "x.onnx")
    (tmp_path / "images").mkdir()
    contents = {
        "a": encoded("RGB", "PNG"),
        "b": b"text",
        "c": encoded("RGB", "PNG")[:-30],
        "d": claiming(50_000, 50_000),
    }
    for name, content in {**contents, "e": contents["a"]}.items():
        (tmp_path / "images" / f"{name}.png").write_bytes(content)
    code, out, lines = infer("--model", model, "--image", "images", "--output", "out.jsonl", cwd=tmp_path)
    assert (code, out) == (3, "")
    classified = [json.loads(line)["image"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert classified == ["images/a.png", "images/e.png"]
    assert [line.split()[:3] for line in lines] == [["error:", "image", f"images/{name}.png"] for name in "bcd"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "out.jsonl", "x.onnx", "x.onnx.json"]
