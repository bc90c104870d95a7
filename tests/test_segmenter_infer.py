# SPDX-License-Identifier: Apache-2.0
"""Images to masks, overlays and areas by `infer.py`, with the classes that `eval.py` counts."""

import json
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from PIL import Image
from segmenter_run import NAMES, colours, write_pairs, write_segmenter

from src.deploy.export import export_checkpoint
from src.deploy.running.evaluate import evaluate_exported
from src.deploy.running.predict import open_predictor
from src.device import World
from src.tasks.pixel_judge import confusion_of, scores
from src.tasks.pixel_results import overlay, shares_of


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose images are larger and smaller than its windows: its config and its ONNX file."""
    folder = tmp_path_factory.mktemp("run")
    write_pairs(folder / "data", [(90, 150), (60, 40), (20, 70)])
    config = write_segmenter(folder, "--data_dir", str(folder / "data"), "--segmentation.scale", "[48, 96]")
    (path,) = export_checkpoint(config, folder / "best.ckpt", ["onnx"], None)
    return config, path


def test_masks_are_what_evaluation_counts(run, tmp_path, infer_call):
    """The masks of a folder have its names and the values of the training's masks, in the classes' colours, and mIoU of
    them is what `eval.py --model` says; areas are theirs."""
    config, path = run
    data = Path(config.data.data_dir)
    images = data / "images" / "validation"
    code, out, err = infer_call("--model", path, "--image", images, "--output", tmp_path / "masks", "--json")
    assert code == 0 and not err
    assert sorted(mask.name for mask in (tmp_path / "masks").iterdir()) == ["0.png", "1.png", "2.png"]
    confusion, lines = np.zeros((4, 4), np.int64), [json.loads(line) for line in out.splitlines()]
    for number, line in enumerate(lines):
        mask = Image.open(tmp_path / "masks" / f"{number}.png")
        values = np.asarray(mask)
        assert mask.mode == "P" and mask.size == Image.open(images / f"{number}.png").size
        np.testing.assert_array_equal(np.reshape(mask.getpalette(), (-1, 3))[1:5], colours())
        truth = np.asarray(Image.open(data / "annotations" / "validation" / f"{number}.png")).astype(int)
        confusion += confusion_of(np.where(truth == 0, 255, truth - 1), values.astype(int) - 1, 4, 255)
        counts = {NAMES[k]: np.mean(values == k + 1) for k in range(4) if (values == k + 1).any()}
        assert line["image"] == str(images / f"{number}.png")
        assert {area["label"]: area["percent"] for area in line["areas"]} == {
            name: pytest.approx(100 * share, abs=1e-3) for name, share in counts.items()
        }
        percents = [area["percent"] for area in line["areas"]]
        assert percents == sorted(percents, reverse=True) and sum(percents) == pytest.approx(100, abs=1e-3)
    result, _ = evaluate_exported(config, path, World())
    assert result["miou"] == pytest.approx(np.nanmean(scores(confusion)[0]), rel=1e-9)


def test_a_checkpoint_finds_the_same(run):
    """Without an export too, by the same windows."""
    config, path = run
    ms.set_context(mode=ms.GRAPH_MODE)
    images = sorted(Path(config.data.data_dir, "images", "validation").iterdir())
    found = []
    for model in (path, Path(config.output_dir, "best.ckpt")):
        predictor = open_predictor(model, batch_size=3)
        found.append([answer[0] for _, answer in predictor.answers(predictor.read(images))])
        assert predictor.deployment.labels == NAMES
    for one, two in zip(*found, strict=True):
        assert one.shape == two.shape and np.mean(one == two) > 0.999


def test_folders_and_what_cannot_be_read(run, tmp_path, infer_call):
    """Masks and overlays lie as their images do; damaged images are named at the end, and the exit code is 3."""
    source = Path(run[0].data.data_dir, "images", "validation", "0.png")
    for name in ("a/x.png", "b/x.png", "b/y.jpg"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.open(source).save(tmp_path / "in" / name)
    (tmp_path / "in" / "b" / "broken.png").write_bytes(source.read_bytes()[:80])
    words = ["--model", run[1], "--image", tmp_path / "in", "--output", tmp_path / "out", "--overlay"]
    code, out, err = infer_call(*words)
    assert code == 3 and "broken.png is truncated or damaged" in err and len(err.splitlines()) == 1
    written = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png"))
    masks = ["a/x.png", "b/x.png", "b/y.png"]
    assert written == sorted([*masks, *(f"overlays/{name}" for name in masks)])
    lines = out.splitlines()
    assert lines[0] == str(tmp_path / "in" / "a" / "x.png") and lines[1].split()[1] == "%"
    picture = Image.open(tmp_path / "out" / "overlays" / "a" / "x.png")
    width, height = Image.open(source).size
    assert picture.mode == "RGB" and picture.width > width and picture.height >= height


def test_one_image(run, tmp_path, infer_call):
    """Its mask has its name; without --output its areas alone are printed, and nothing is written."""
    image = Path(run[0].data.data_dir, "images", "validation", "1.png")
    code, _, _ = infer_call("--model", run[1], "--image", image, "--output", tmp_path / "one")
    assert code == 0 and [path.name for path in (tmp_path / "one").iterdir()] == ["1.png"]
    code, out, _ = infer_call("--model", run[1], "--image", image)
    assert code == 0 and out.splitlines()[0] == str(image) and [path.name for path in tmp_path.iterdir()] == ["one"]


def test_an_overlay():
    """Classes shine through in their colours, those that occur are named beside, with their colours again."""
    rng = np.random.default_rng(0)
    pixels, classes = rng.integers(0, 256, (60, 80, 3), np.uint8), np.repeat([[0, 2]], 60, 0).repeat(40, 1)
    shares = shares_of(classes[:, 10:], NAMES)
    assert shares == [(2, pytest.approx(100 * 4 / 7)), (0, pytest.approx(100 * 3 / 7))]
    picture = np.asarray(overlay(pixels, classes.astype(np.uint8), [(2, "cat"), (0, "ant")], colours()))
    for k, columns in ((0, slice(0, 40)), (2, slice(40, 80))):
        expected = 0.4 * pixels[:, columns] + 0.6 * colours()[k]
        assert np.abs(picture[:60, columns] - expected).max() <= 1
        legend = picture[:, 80:]
        assert (legend == colours()[k]).all(2).sum() > 20
    assert not (legend == colours()[1]).all(2).any()


def test_what_is_refused(run, tmp_path, infer_call):
    """Options of another task, overlays without a folder, a file in the place of one, two images of one mask."""
    data = Path(run[0].data.data_dir, "images", "validation")
    (tmp_path / "file").touch()
    (tmp_path / "in").mkdir()
    for name in ("x.png", "x.jpg"):
        Image.open(data / "0.png").save(tmp_path / "in" / name)
    for words, named in (
        (["--topk", "3"], f"error: --topk is not for what {run[1]} does; leave it out"),
        (["--overlay"], "error: --overlay writes pictures; give a folder for them with --output"),
        (["--output", tmp_path / "file"], "file is no folder; masks take one"),
        (["--output", tmp_path / "file" / "below"], "cannot create folder"),
        (["--output", tmp_path / "out", "--image", tmp_path / "in"], "would have the same mask"),
    ):
        code, _, err = infer_call("--model", run[1], "--image", data, *words)
        assert code == 2 and named in err and len(err.splitlines()) == 1
