# SPDX-License-Identifier: Apache-2.0
"""Damaged, foreign and hostile models end in one line: nothing hangs, crashes or runs code."""

import binascii
import json
import pickle
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from hostile import Evil, bounded, damaged, infer
from hypothesis import given
from hypothesis import strategies as st
from mindspore import nn
from mindspore.train.mind_ir_pb2 import ModelProto
from PIL import Image
from tiny_exported import SIZE, describe, write_onnx

from src.deploy.card import card_path
from src.deploy.running.exported import ExportedModel
from src.deploy.running.predict import open_predictor
from src.errors import UserError
from src.training.checkpoint import read_checkpoint, save_weights

ROOT = Path(__file__).resolve().parent.parent
SHAPE = [4, 1, SIZE, SIZE]
KEY = "0123456789abcdef"


def opened(path):
    """Run an exported file, or be refused in one line; anything else is the failure of a test."""
    try:
        logits = ExportedModel(path).results(np.zeros(SHAPE, np.float32))[0]
    except UserError as error:
        assert str(path) in str(error)
        return False
    assert logits.shape == (4, 3) and np.isfinite(logits).all()
    return True


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


def test_onnx(folder):
    """A damaged ONNX file whose description was made to fit: it is run as described, or refused."""
    path = write_onnx(folder / "x.onnx")
    assert opened(path)

    @bounded(80)
    @given(damaged(path.read_bytes()))
    def property(content):
        path.write_bytes(content)
        describe(path, SHAPE)
        opened(path)

    property()


def test_an_onnx_file_of_another_model(folder):
    """Other names, shapes and types than the description's, and outputs that are not finite, are named."""
    for form, message in (
        ({"softmax": True}, r"has the outputs \['probabilities'\], but other.onnx.json says logits"),
        ({"batch": 2}, r"an input of float32 \[2, 1, 8, 8\], but other.onnx.json says float32 \[4, 1, 8, 8\]"),
        ({"dtype": "float16"}, "an input of float16"),
        ({"bias": np.inf}, "gives logits that are not finite"),
    ):
        path = write_onnx(folder / "other.onnx", **form)
        describe(path, SHAPE)
        with pytest.raises(UserError, match=message):
            ExportedModel(path).results(np.zeros(SHAPE, np.float32))[0]


def image_of(folder):
    path = folder / "image.png"
    Image.new("L", (9, 9), 200).save(path)
    return path


def used_or_refused(path, description, image):
    """Write a description and classify an image by it; true where it was not refused."""
    card_path(path).write_bytes(description)
    try:
        classifier = open_predictor(path)
        batches = classifier.read([image])
        return (
            len([classifier.deployment.best(answer, 3) for _, answer in classifier.answers(batches)])
            + len(batches.unreadable)
            == 1
        )
    except UserError as error:
        assert str(path) in str(error)
        return False


def test_anything_in_a_description(folder):
    """Whatever stands in the place of a value, the description is refused; labels may be any text."""
    path, image = write_onnx(folder / "card.onnx"), image_of(folder)
    text = card_path(path).read_bytes()
    card = json.loads(text)
    places = [(key, inner) for key in card if isinstance(card[key], dict) for inner in card[key]]
    places += [(key,) for key in card] + [("input", "shape", k) for k in range(4)]
    places += [("preprocessing", "mean", 0), ("preprocessing", "std", 0), ("labels", 1)]
    values = [None, [], {}, "x", -1, 0, 3, 10**9, 1e308, float("nan"), [[]], [10**9], "\ud800"]
    used = set()
    for *parents, last in places:
        for value in values:
            changed = json.loads(text)
            parent = changed
            for key in parents:
                parent = parent[key]
            if parent[last] == value and type(parent[last]) is type(value):
                continue
            parent[last] = value
            if used_or_refused(path, json.dumps(changed).encode(), image):
                used.add((*parents, last, str(value)))
    labels = {("labels", 1, "x"), ("labels", 1, "\ud800")}
    assert used == labels | {("preprocessing", "mean", 0, "0"), ("preprocessing", "resize", "3")}


def test_a_damaged_description(folder):
    """One that was cut or changed, or nests deeper than Python goes, is used or refused, never stumbled over."""
    path, image = write_onnx(folder / "card.onnx"), image_of(folder)
    text = card_path(path).read_bytes()

    @bounded(60)
    @given(damaged(text))
    def property(changed):
        used_or_refused(path, changed, image)

    property()
    assert not used_or_refused(path, b"[" * 100_000, image)


def test_checkpoints(folder):
    """What a checksum declares whole can still be anything."""
    network = nn.SequentialCell(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    path = folder / "x.ckpt"
    save_weights(path, network, {"model": {"name": "x"}})
    content = path.read_bytes()[:-17]

    @bounded(80)
    @given(damaged(content), st.booleans())
    def property(changed, is_sealed):
        checksum = b"crc_num" + binascii.crc32(changed).to_bytes(10, "big")
        path.write_bytes(changed + checksum * is_sealed)
        try:
            _, meta = read_checkpoint(path)
            assert isinstance(meta, dict)
        except UserError as error:
            assert "x.ckpt" in str(error)

    property()


@pytest.mark.parametrize("name", ["x.onnx", "x.mindir", "best.ckpt"])
def test_nothing_is_unpickled(tmp_path, name):
    """A pickle under another name is refused, and nothing in it runs."""
    mark = tmp_path / "mark"
    content = pickle.dumps(Evil(mark))
    path = tmp_path / name
    path.write_bytes(content)
    if path.suffix == ".ckpt":
        path.write_bytes(content + b"crc_num" + binascii.crc32(content).to_bytes(10, "big"))
        with pytest.raises(UserError, match="is no checkpoint"):
            read_checkpoint(path)
    else:
        describe(path, SHAPE)
        assert not opened(path)
    assert not mark.exists()
    pickle.loads(content)
    assert mark.exists()


@pytest.fixture(scope="module")
def mindir(folder):
    """A linear layer as MindIR, plain and encrypted, without descriptions."""

    class Linear(nn.Cell):
        def __init__(self):
            super().__init__()
            self.flatten, self.dense = nn.Flatten(), nn.Dense(SIZE**2, 3)

        def construct(self, image):
            return self.dense(self.flatten(image))

    ms.set_context(mode=ms.GRAPH_MODE)
    image = ms.Tensor(np.zeros(SHAPE, np.float32))
    ms.export(Linear(), image, file_name=str(folder / "plain"), file_format="MINDIR")
    options = {"enc_key": KEY.encode(), "enc_mode": "AES-GCM"}
    ms.export(Linear(), image, file_name=str(folder / "secret"), file_format="MINDIR", **options)
    return folder / "plain.mindir", folder / "secret.mindir"


def test_a_mindir_that_crashes_mindspore(mindir, tmp_path):
    """The program survives, says so in one line, and leaves nothing behind."""
    model = ModelProto()
    model.ParseFromString(mindir[0].read_bytes())
    (flatten,) = (node for node in model.graph.node if "Flatten" in node.op_type)
    del flatten.input[:]
    path = tmp_path / "crash.mindir"
    path.write_bytes(model.SerializeToString())
    describe(path, SHAPE)
    code, out, lines = infer("--model", path, "--image", image_of(tmp_path), cwd=tmp_path)
    assert (code, out, len(lines)) == (2, "", 1) and lines[0].startswith(f"error: {path}")
    assert len(list(tmp_path.iterdir())) == 3


def test_damaged_mindir(mindir, tmp_path):
    """Bytes changed at random are refused, or run, or crash the child that opens them; none hangs or raises.

    One process opens many, each in a child of its own, because MindSpore may crash on any.
    """
    content, paths = mindir[0].read_bytes(), []

    @bounded(20)
    @given(damaged(content))
    def write(changed):
        paths.append(tmp_path / f"{len(paths)}.mindir")
        paths[-1].write_bytes(changed)
        describe(paths[-1], SHAPE)

    write()
    program = ROOT / "tests" / "open_each.py"
    command = [sys.executable, program, *paths]
    # MindSpore's messages can hold parts of the file.
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=tmp_path, timeout=200)
    ends = done.stdout.split()
    assert len(ends) == len(paths) and set(ends) <= {"ran", "refused", "crashed"} and "refused" in ends, done.stderr


def test_keys(mindir, tmp_path):
    """A key that is missing, wrong or not needed is named, and never printed."""
    for path in mindir:
        describe(path, SHAPE, change_card=lambda card, path=path: {**card, "encrypted": path == mindir[1]})
    zeros = np.zeros(SHAPE, np.float32)
    assert ExportedModel(mindir[1], key=KEY.encode()).results(zeros)[0].shape == (4, 3)
    for path, key, message in (
        (mindir[1], None, "is encrypted; give its key"),
        (mindir[1], KEY[::-1].encode(), r"cannot be opened with this --key \(.*\); give the key it was exported with"),
        (mindir[0], KEY.encode(), "is not encrypted; leave --key out"),
    ):
        with pytest.raises(UserError, match=message) as refused:
            ExportedModel(path, key=key)
        assert key is None or key.decode() not in str(refused.value)
