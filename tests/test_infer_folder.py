# SPDX-License-Identifier: Apache-2.0
"""Folders of images: which ones are found, what is written of them, and that their number does not matter."""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_exported import CLASSES, linear_weights, write_onnx

from src.config import DataConfig
from src.data.transforms import load_image, preprocessing
from src.deploy.running.images import find_images
from src.deploy.running.predict import open_predictor
from src.errors import UserError
from src.tasks.class_results import open_results


def test_finding_images(tmp_path, monkeypatch):
    """A folder gives its images at any depth, in order, and what cannot be listed, to be named; none is refused."""
    for name in ("b/2.PNG", "a.jpeg", "b/c/1.bmp", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [str(path.relative_to(tmp_path)) for path in find_images(tmp_path)] == ["a.jpeg", "b/2.PNG", "b/c/1.bmp"]
    assert list(find_images(tmp_path / "b" / "notes.txt")) == [tmp_path / "b" / "notes.txt"]
    list_folder = os.scandir

    def scandir(path):
        if str(path).endswith("/c"):
            raise PermissionError(13, "Permission denied", str(path))
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert [path.name for path in find_images(tmp_path)] == ["a.jpeg", "2.PNG", "c"]
    monkeypatch.undo()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty has no image \(\.jpeg"):
        find_images(tmp_path / "empty")
    with pytest.raises(UserError, match=r"there is no image or folder .*nowhere"):
        find_images(tmp_path / "nowhere")


def test_results(tmp_path, capsys):
    """Every image is in the file as soon as it is written; names that are no text survive; no other file is begun."""
    best = [("a, b", 0.5), ("c", 0.25)]
    for name, expected in (
        ("x.jsonl", r'{"image": "\udcff.png", "topk": [{"label": "a, b", "probability": 0.5}, '),
        ("x.csv", 'image,label_1,probability_1,label_2,probability_2\n\\udcff.png,"a, b",0.5,c,0.25'),
    ):
        with open_results(tmp_path / name, False, 2) as write:
            write(Path("\udcff.png"), best)
            assert (tmp_path / name).read_text().startswith(expected)
    (tmp_path / "full.csv").symlink_to("/dev/full")
    for output, as_json, message in (
        ("x.txt", False, r"--output x\.txt is of no known kind; it takes a \.jsonl or \.csv"),
        ("x.csv", True, "--json is of standard output"),
        (tmp_path / "nowhere" / "x.csv", False, "cannot write .*No such file"),
        (tmp_path / "full.csv", False, "cannot write .*No space left"),
    ):
        with pytest.raises(UserError, match=message), open_results(output, as_json, 2):
            pass


def test_memory_does_not_follow_the_number_of_images(tmp_path):
    """Images are found, read and classified a few at a time."""
    for name in "abc":
        Image.new("L", (9, 9), 100).save(tmp_path / f"{name}.png")
    begun = []

    def endless():
        for path in itertools.cycle(find_images(tmp_path)):
            begun.append(path)
            yield path

    classifier = open_predictor(write_onnx(tmp_path / "x.onnx"))
    done = list(itertools.islice(classifier.answers(classifier.read(endless(), 2)), 300))
    assert len(done) == 300 and len(begun) < 400


def test_threads(tmp_path):
    """They reach onnxruntime; readers are no more than there are cores, which MindSpore would refuse."""
    classifier = open_predictor(write_onnx(tmp_path / "x.onnx"), threads=1)
    assert classifier.model._model.session.get_session_options().intra_op_num_threads == 1
    assert [classifier.read([], threads).threads for threads in (1, None, 10**6)] == [1, *2 * [os.cpu_count()]]


@pytest.mark.parametrize(
    ("form", "batch_size", "tolerance"),
    [
        ({"batch": 4}, None, 1e-5),
        ({"batch": "batch"}, 3, 1e-5),
        ({"batch": "batch"}, None, 1e-5),
        ({"dtype": "uint8"}, None, 1e-5),
        ({"dtype": "uint8", "softmax": True, "batch": "batch"}, 5, 1e-5),
        ({"dtype": "float16", "softmax": True}, None, 2e-2),
    ],
    ids=["four", "any, by three", "any", "pixels", "pixels to probabilities", "float16"],
)
def test_every_form_of_a_file(tmp_path, form, batch_size, tolerance):
    """Whatever a file takes and gives, each image gets the probabilities that the layer in it gives the image alone."""
    model = write_onnx(tmp_path / "x.onnx", **form)
    classifier = open_predictor(model, batch_size=batch_size)
    weights, bias = linear_weights()
    paths = [tmp_path / f"{number}.png" for number in range(9)]
    for number, path in enumerate(paths):
        Image.new("L", (9, 8), 30 * number).save(path)
    batches = classifier.read(paths, 2)
    deployment = classifier.deployment
    for path, (name, answer) in zip(paths, classifier.answers(batches), strict=True):
        best = deployment.best(answer, 3)
        powers = np.exp(load_image(path, deployment.spec).reshape(-1) @ weights + bias)
        expected = dict(zip(CLASSES, powers / powers.sum()))
        assert name == path and dict(best) == pytest.approx(expected, rel=tolerance)


def test_pixels_are_what_normalisation_takes(tmp_path):
    """Pixels, normalised as a file does it that takes them, are what images are without such a file."""
    rng = np.random.default_rng(0)
    path = tmp_path / "x.png"
    Image.fromarray(rng.integers(0, 255, (30, 50, 3), np.uint8)).save(path)
    for mean, std in (([0.4], [0.2]), ([0.5, 0.4, 0.3], [0.3, 0.2, 0.1])):
        spec = preprocessing(DataConfig(resize=20, interpolation="bicubic", mean=mean, std=std), 16, len(mean))
        pixels = load_image(path, spec, as_pixels=True)
        assert pixels.dtype == np.uint8 and pixels.shape == (16, 16, len(mean))
        normal = (pixels / 255 - mean) / std
        np.testing.assert_allclose(load_image(path, spec), normal.transpose(2, 0, 1), atol=1e-5)
