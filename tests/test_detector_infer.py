# SPDX-License-Identifier: Apache-2.0
"""Images to boxes, pictures and COCO's results by `infer.py`, the same that `eval.py` judges."""

import json
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from detector_run import IDS, NAMES, write_detector, write_photographs, write_what_is_found
from PIL import Image
from pycocotools import mask as coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from src.data.class_colours import palette
from src.deploy.export import export_checkpoint
from src.deploy.running.evaluate import evaluate_exported
from src.deploy.running.predict import open_predictor
from src.device import World
from src.tasks.box_results import image_id, picture
from src.tasks.found import Found, coco_results, found_in


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose images are larger, smaller and of other shapes than its input: its config and its ONNX file."""
    folder = tmp_path_factory.mktemp("run")
    write_photographs(folder / "data", [(150, 90), (40, 96), (640, 960)])
    config = write_detector(folder)
    write_what_is_found(folder / "best.ckpt", folder / "data")
    (path,) = export_checkpoint(config, folder / "best.ckpt", ["onnx"], 2)
    return config, path


def test_results_are_what_evaluation_judges(run, tmp_path, infer_call):
    """COCO's tools read the file of results, by the ids of the data set, and say what `eval.py --model` does."""
    config, path = run
    data, results = Path(config.data.data_dir), tmp_path / "results.json"
    words = ["--model", path, "--image", data / "images", "--threshold", "0", "--json"]
    code, out, err = infer_call(*words, "--output", results)
    assert code == 0 and not err
    lines, entries = [json.loads(line) for line in out.splitlines()], json.loads(results.read_text())
    assert [line["image"] for line in lines] == [str(image) for image in sorted((data / "images").iterdir())]
    assert [{k: v for k, v in entry.items() if k != "label"} for line in lines for entry in line["results"]] == entries
    assert all(IDS[NAMES.index(entry["label"])] == entry["category_id"] for line in lines for entry in line["results"])
    truth = COCO(str(data / "boxes.json"))
    judged = COCOeval(truth, truth.loadRes(str(results)), "bbox")
    judged.evaluate()
    judged.accumulate()
    judged.summarize()
    wanted, _ = evaluate_exported(config, path, World())
    assert 100 * judged.stats[:2] == pytest.approx([wanted["ap"], wanted["ap50"]]) and wanted["ap50"] > 0


def test_a_checkpoint_finds_the_same(run):
    """Without an export too, in batches of another size."""
    config, path = run
    ms.set_context(mode=ms.GRAPH_MODE)
    images = sorted(Path(config.data.data_dir, "images").iterdir())
    found = []
    for model, count in ((path, None), (Path(config.output_dir, "best.ckpt"), 3)):
        predictor = open_predictor(model, batch_size=count)
        found.append([answer for _, answer in predictor.answers(predictor.read(images))])
    for one, two in zip(*found, strict=True):
        assert one.size == two.size and len(one.labels) == len(two.labels) > 5
        np.testing.assert_allclose(one.scores, two.scores, atol=1e-5)
        np.testing.assert_allclose(np.sort(one.boxes.ravel()), np.sort(two.boxes.ravel()), atol=0.01)


def test_pictures_and_what_cannot_be_read(run, tmp_path, infer_call):
    """Pictures lie as their images do; damaged images are named at the end, and the exit code is 3."""
    source = Path(run[0].data.data_dir, "images", f"{0:012d}.png")
    for name in ("a/x.png", "b/x.jpg"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.open(source).save(tmp_path / "in" / name)
    (tmp_path / "in" / "b" / "broken.png").write_bytes(source.read_bytes()[:80])
    words = ["--model", run[1], "--image", tmp_path / "in", "--output", tmp_path / "out", "--threshold", "0.1"]
    code, out, err = infer_call(*words)
    assert code == 3 and "broken.png is truncated or damaged" in err and len(err.splitlines()) == 1
    written = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png"))
    assert written == ["a/x.png", "b/x.png"]
    lines = out.splitlines()
    assert lines[0] == str(tmp_path / "in" / "a" / "x.png") and lines[1].split()[1:3] in [["%", name] for name in NAMES]
    shown = Image.open(tmp_path / "out" / "a" / "x.png")
    assert shown.height == 150 and shown.width > 90


def test_the_threshold(run, infer_call):
    """Nothing is shown below it; by itself it is 0.3."""
    words = ["--model", run[1], "--image", run[0].data.data_dir + "/images", "--json"]

    def scores(*more):
        code, out, _ = infer_call(*words, *more)
        assert code == 0
        return [entry["score"] for line in out.splitlines() for entry in json.loads(line)["results"]]

    every = scores("--threshold", 0)
    middle = sorted(every)[len(every) // 2]
    assert scores("--threshold", middle) == [score for score in every if score >= middle] != every
    assert scores() == scores("--threshold", 0.3) == [score for score in every if score >= 0.3]
    code, _, err = infer_call(*words, "--threshold", "1.5")
    assert code == 2 and "--threshold is 1.5 but takes 0 to 1" in err


def test_a_picture():
    """Boxes have the colour of their class, masks shine through them, the legend names and counts those that occur."""
    pixels = np.full((60, 80, 3), 100, np.uint8)
    boxes = np.array([[10, 20, 30, 50], [50.0, 10, 70, 30], [40, 40, 50, 50]])
    masks = np.zeros((3, 4, 4))
    masks[0, 2:] = 1
    found = Found((60, 80), boxes, np.float32([0.9, 0.8, 0.5]), np.array([2, 0, 2]), boxes, masks)
    colours = palette(4)[1:]
    shown = np.asarray(picture(pixels, found, NAMES, colours)).astype(int)
    for (x1, y1, x2, y2), label in zip(boxes.astype(int), found.labels):
        for row, column in ((y1 + 8, x1), (y2 - 1, x2 - 1), (y2 - 1, x1 + 3)):
            assert (shown[row, column] == colours[label]).all()
    assert np.abs(shown[45, 20] - (50 + 0.5 * colours[2])).max() <= 1  # in the lower half of the first box
    assert (shown[30, 20] == 100).all() and (shown[35, 75] == 100).all()
    legend = shown[:, 80:]
    assert all((legend == colours[k]).all(2).sum() > 20 for k in (0, 2))
    assert not (legend == colours[1]).all(2).any()


def test_masks_of_boxes_that_leave_the_picture():
    """A box is cut to the image, its mask is not squeezed: it fills the box as the network gave it."""
    mask = np.tile(np.repeat([1.0, 0.0], 4), (8, 1))[None]  # the left half
    boxes, labels = np.float32([[40, 0, 120, 40]]), np.int32([0])
    found = found_in((80, 160), (40, 80), boxes, np.float32([0.9]), labels, mask)
    assert found.boxes.tolist() == [[80, 0, 160, 80]] and found.around.tolist() == [[80, 0, 240, 80]]
    assert found.mask(0)[5:75, 80:].all() and not found.mask(0)[:, :80].any()
    results = coco_results(found, 7, [90], ("bbox", "segm"))
    assert results["bbox"][0] == {
        "image_id": 7,
        "category_id": 90,
        "bbox": [80, 0, 80, 80],
        "score": pytest.approx(0.9),
    }
    runs = results["segm"][0]["segmentation"]
    np.testing.assert_array_equal(coco.decode({**runs, "counts": runs["counts"].encode()}), found.mask(0))


def test_ids_of_images(tmp_path):
    """As COCO names its images; of others the path below the folder."""
    assert image_id(tmp_path / "000000000139.jpg", tmp_path) == 139
    assert image_id(tmp_path / "a" / "x.png", tmp_path) == "a/x.png"
    assert image_id(Path("b/y.png"), Path("b/y.png")) == "y.png"


def test_what_is_refused(run, tmp_path, infer_call):
    """Options of another task, a file in the place of a folder, no folder for a file, two images of one picture."""
    data = Path(run[0].data.data_dir, "images")
    (tmp_path / "file").touch()
    (tmp_path / "in").mkdir()
    for name in ("x.png", "x.jpg"):
        Image.open(data / f"{1:012d}.png").save(tmp_path / "in" / name)
    for words, named in (
        (["--topk", "3"], f"error: --topk is not for what {run[1]} does; leave it out"),
        (["--overlay"], f"error: --overlay is not for what {run[1]} does; leave it out"),
        (["--output", tmp_path / "file"], "file is no folder; pictures take one"),
        (["--output", tmp_path / "none" / "x.json"], "takes a .json file in a folder that exists"),
        (["--output", tmp_path / "out", "--image", tmp_path / "in"], "would have the same picture"),
    ):
        code, _, err = infer_call("--model", run[1], "--image", data, *words)
        assert code == 2 and named in err and len(err.splitlines()) == 1
