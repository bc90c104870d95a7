# SPDX-License-Identifier: Apache-2.0
"""A small Mask R-CNN from its training on scenes to files, their AP of boxes and masks, results and pictures."""

import json
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scene_training import scene_config
from tiny_training import changed

from src.deploy.card import read_card
from src.deploy.export import export_checkpoint
from src.deploy.running.evaluate import evaluate_exported
from src.device import World
from src.errors import UserError
from src.tasks import create_task
from src.tasks.coco_ap import NUMBERS, average_precision, truth_of
from src.training import trainer
from src.training.checkpoint import read_checkpoint
from src.training.metrics import read_metrics

KINDS = {"bbox": "", "segm": "mask_"}


@pytest.fixture(scope="module")
def run(scenes, tiny_model, tmp_path_factory):
    """What was trained for twelve steps, and its file: the config, the results of the training, the path."""
    ms.set_context(mode=ms.GRAPH_MODE)
    folder = tmp_path_factory.mktemp("maskrcnn")
    config = changed(
        scene_config("maskrcnn", scenes, folder, "tiny_backbone", "{}"),
        detection={"threshold": 0.01, "max_detections": 20},
        optimizer={"name": "adamw", "lr": 2e-3, "ema_decay": 0.0},
        train={"epochs": 3, "eval_epochs": 3, "save_steps": 0},
    )
    result = trainer.train(create_task(config), World())
    (path,) = export_checkpoint(config, Path(config.output_dir, "best.ckpt"), ["onnx"])
    return config, result, path


def results_of(config, kind):
    return json.loads(Path(config.output_dir, "results", f"{kind}.json").read_text())


@pytest.fixture(scope="module")
def found(run):
    """The `Config` of a data set of the one image that fills the input, on which is every other thing that the network
    found there: training that short finds nothing that is right."""
    config, folder = run[0], Path(run[0].output_dir).parent
    said = json.loads(Path(config.data.data_dir, "instances_validation.json").read_text())
    said["images"] = [image for image in said["images"] if image["height"] == image["width"]]
    (image,) = said["images"]
    pairs = zip(*(results_of(config, kind) for kind in KINDS), strict=True)
    things = [{**mask, **box} for box, mask in pairs if box["image_id"] == image["id"]]
    said["annotations"] = [
        {**thing, "id": number, "iscrowd": 0, "area": thing["bbox"][2] * thing["bbox"][3]}
        for number, thing in enumerate(things[::2], 1)
    ]
    (folder / "found.json").write_text(json.dumps(said))
    return changed(config, detection={"val_annotations": str(folder / "found.json")}, output_dir=str(folder / "out"))


def test_it_learns_and_its_weights_have_their_names(run):
    """All five losses together fall, none is lost; what is saved fits the network that is built to judge or go on."""
    config, result, _ = run
    lines = [line for line in read_metrics(f"{config.output_dir}/metrics.jsonl") if line["kind"] == "train"]
    losses = [line["loss"] for line in lines]
    assert len(losses) == 6 and np.isfinite(losses).all() and max(losses[1:]) < 0.8 * losses[0]
    assert result["samples"] == 3 and result["mask_ap"] >= 0 and result["detections"] > 20
    names = {parameter.name for parameter in create_task(config).build().trainable_params()}
    assert names <= {*read_checkpoint(f"{config.output_dir}/last.ckpt")[0]}


def test_a_file_has_the_ap_of_its_network(run, found):
    """Boxes and masks: all twelve numbers of both as the results of the training have them."""
    config, _, path = run
    got, _ = evaluate_exported(found, path, World())
    task = create_task(found)
    task.open_to_judge({}, "x")
    (image,) = task.splits["val"].file.image_ids.tolist()
    for kind, prefix in KINDS.items():
        results = [result for result in results_of(config, kind) if result["image_id"] == image]
        wanted, _ = average_precision(truth_of(task.splits["val"], kind), results, kind)
        assert {name: got[prefix + name] for name in NUMBERS} == pytest.approx(wanted, abs=1e-6)
        assert wanted["ap"] > 10
    assert [result["name"] for result in read_card(path)["output"]] == ["boxes", "scores", "labels", "masks", "count"]


def test_results_with_masks_are_what_evaluation_judges(run, found, tmp_path, infer_call):
    """COCO's tools read boxes and masks of the list in the sizes of the files, and say what `eval.py --model` does."""
    _, _, path = run
    images, results = Path(found.data.data_dir, "images", "validation"), tmp_path / "results.json"
    code, _, err = infer_call("--model", path, "--image", images, "--threshold", 0, "--output", results)
    assert code == 0 and not err
    sizes = {int(image.stem): Image.open(image).size for image in images.iterdir()}
    entries = json.loads(results.read_text())
    assert {entry["image_id"] for entry in entries} == {*sizes}
    assert all(entry["segmentation"]["size"] == [*sizes[entry["image_id"]][::-1]] for entry in entries)
    assert any(coco.area(entry["segmentation"]) > 100 for entry in entries)
    wanted, _ = evaluate_exported(found, path, World())
    truth = COCO(found.detection.val_annotations)
    there = [entry for entry in entries if entry["image_id"] in truth.imgs]
    for kind, prefix in KINDS.items():
        mine = [
            {key: entry[key] for key in entry if key != ("bbox" if kind == "segm" else "segmentation")}
            for entry in there
        ]
        judged = COCOeval(truth, truth.loadRes(mine), kind)
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
        assert 100 * judged.stats[:2] == pytest.approx([wanted[f"{prefix}ap"], wanted[f"{prefix}ap50"]], abs=1e-6)


def test_pictures_of_masks(run, tmp_path, infer_call):
    """Each image of a folder has one, in which masks shine through; below the threshold it is as it was."""
    config, _, path = run
    images, changes = Path(config.data.data_dir, "images", "validation"), []
    for threshold in (0.01, 1):
        words = ["--model", path, "--image", images, "--output", tmp_path / str(threshold), "--threshold", threshold]
        assert infer_call(*words)[0] == 0
        pictures = sorted((tmp_path / str(threshold)).iterdir())
        assert [picture.stem for picture in pictures] == sorted(image.stem for image in images.iterdir())
        pixels = [
            np.asarray(Image.open(name).convert("RGB")).astype(int)
            for name in (sorted(images.iterdir())[0], pictures[0])
        ]
        height, width, _ = pixels[0].shape
        changes.append(np.any(pixels[0] != pixels[1][:height, :width], axis=2).mean())
    assert changes[0] > 0.05 and changes[1] == 0


def test_what_two_stages_do_not_have(run, tmp_path):
    """A file without selection: in one line, before anything is written."""
    config = changed(run[0], output_dir=str(tmp_path))
    with pytest.raises(UserError, match=r"--raw"):
        export_checkpoint(config, Path(run[0].output_dir, "best.ckpt"), ["onnx"], raw=True)
    assert list(tmp_path.iterdir()) == []
