# SPDX-License-Identifier: Apache-2.0
"""Images are classified alike by every form of a model, and what cannot be used is refused in one line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from exported_run import CLASSES, write_images, write_run

from src.data.transforms import load_image
from src.deploy.card import card_path, read_card
from src.deploy.export import export_checkpoint
from src.deploy.running.images import find_images
from src.deploy.running.predict import open_predictor
from src.deploy.running.runtime import CheckpointModel
from src.errors import UserError
from src.training.network import build_network

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run exported in both formats for three images at once; a plain network, which compiles soonest: its config."""
    folder = tmp_path_factory.mktemp("run")
    write_images(folder / "images")
    config = write_run(folder, "--data_dir", str(folder / "images"), "--model.name", "resnet26")
    export_checkpoint(config, folder / "best.ckpt", ["mindir", "onnx"], 3)
    return config


def exported(config, kind):
    return Path(config.output_dir) / f"resnet26_32_b3.{kind}"


@pytest.fixture
def copied(run, tmp_path):
    """Copies of the exported files with their descriptions, to be damaged."""
    for kind in ("mindir", "onnx"):
        for path in (exported(run, kind), card_path(exported(run, kind))):
            shutil.copy(path, tmp_path / path.name)
    return {kind: tmp_path / exported(run, kind).name for kind in ("mindir", "onnx")}


def classified(path, images, topk, **options):
    """What a model file makes of images, none of which is damaged."""
    classifier = open_predictor(path, **options)
    batches = classifier.read(images)
    results = [(name, classifier.deployment.best(answer, topk)) for name, answer in classifier.answers(batches)]
    assert batches.unreadable == []
    return results


def test_all_three_forms_classify_alike(run):
    """ONNX, MindIR and checkpoint give every image the same probabilities, as softmax of evaluation's logits says."""
    images = list(find_images(run.data.data_dir))
    assert len(images) == 10  # no multiple of the batch: the last one is filled up
    paths = [exported(run, "onnx"), exported(run, "mindir"), Path(run.output_dir, "best.ckpt")]
    results = [classified(path, images, 4) for path in paths]
    results.append(classified(paths[2], images, 4, batch_size=3))
    model = CheckpointModel(paths[2], build_network(run.model))
    for number, path in enumerate(images):
        spec = read_card(paths[0])["preprocessing"]
        logits = model.results(load_image(path, spec)[None])[0][0].astype(float)
        expected = np.exp(logits) / np.exp(logits).sum()
        for result in results:
            seen, best = result[number]
            assert seen == path
            assert [label for label, _ in best] == [CLASSES[k] for k in np.argsort(-expected)[:4]]
            np.testing.assert_allclose([p for _, p in best], np.sort(expected)[::-1][:4], rtol=1e-4)


def test_more_labels_than_there_are(run):
    """A topk above the number of classes gives them all."""
    ((_, best),) = classified(exported(run, "onnx"), list(find_images(run.data.data_dir))[:1], 99)
    assert sorted(label for label, _ in best) == CLASSES
    assert sum(probability for _, probability in best) == pytest.approx(1, abs=1e-5)


def test_labels_may_be_edited(copied):
    """Whoever wants other names for the classes writes them into the description."""
    card = json.loads(card_path(copied["onnx"]).read_text())
    card["labels"] = [name.upper() for name in CLASSES]
    card_path(copied["onnx"]).write_text(json.dumps(card))
    assert open_predictor(copied["onnx"]).deployment.labels[0] == "CLASS A"


DAMAGE = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "random": lambda content: np.random.default_rng(0).bytes(len(content)),
    "one bit": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("kind", ["mindir", "onnx"])
def test_damaged_models_are_refused(copied, kind, damage):
    """A model file that is not the one described is refused before a library can crash on it."""
    path = copied[kind]
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(UserError, match=rf"b3\.{kind} is not the file that .*\.json describes"):
        open_predictor(path)


def test_missing_models_are_refused(copied, tmp_path):
    """Missing files, unknown kinds and what goes with another kind are each named."""

    def refused(message, *arguments):
        with pytest.raises(UserError, match=message):
            open_predictor(*arguments)

    refused(r"cannot read model nowhere\.onnx: No such file", "nowhere.onnx")
    (tmp_path / "d.mindir").mkdir()
    refused(r"model .*d\.mindir is no file", tmp_path / "d.mindir")
    os.mkfifo(tmp_path / "f.onnx")
    refused(r"model .*f\.onnx is no file", tmp_path / "f.onnx")
    refused(r"model\.pb is of no known kind; it takes a \.onnx", "model.pb")
    refused("--config goes with a .ckpt only", copied["onnx"], "config.yaml")
    refused(r"there is no .*config\.yaml; give the configuration", tmp_path / "best.ckpt")
    refused(r"--batch_size is 4 but .*b3\.onnx takes 3 image\(s\) at once", copied["onnx"], None, 4)
    with pytest.raises(UserError, match=r"--key goes with an encrypted \.mindir only"):
        open_predictor(tmp_path / "best.ckpt", key=b"0123456789abcdef")
    with pytest.raises(UserError, match=r"onnxruntime has no CANNExecutionProvider; .*--device_target CPU"):
        open_predictor(copied["onnx"], device="Ascend")
    card_path(copied["onnx"]).unlink()
    refused(r"cannot read .*\.onnx\.json \(No such file.*copy it too", copied["onnx"])
    os.mkfifo(card_path(copied["onnx"]))
    refused(r"model .*\.onnx\.json is no file", copied["onnx"])


def test_damaged_checkpoint_is_refused(run, tmp_path):
    """A truncated checkpoint, and a configuration of another model, are refused in one line."""
    folder = Path(run.output_dir)
    (tmp_path / "best.ckpt").write_bytes((folder / "best.ckpt").read_bytes()[:-100])
    with pytest.raises(UserError, match=r"best\.ckpt is damaged or incomplete"):
        open_predictor(tmp_path / "best.ckpt", folder / "config.yaml")
    with pytest.raises(UserError, match="does not fit this model"):
        open_predictor(folder / "best.ckpt", ROOT / "config" / "resnet50_imagenet.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda card: "{", "is not JSON"),
        (lambda card: "\xff", "is not JSON"),
        (lambda card: [card], "holds no JSON object"),
        (lambda card: {k: v for k, v in card.items() if k != "labels"}, "labels is missing or no list"),
        (lambda card: {**card, "sha256": 1}, "sha256 is missing or no str"),
        (lambda card: {**card, "preprocessing": {}}, "preprocessing cannot be used"),
        (lambda card: with_spec(card, resize="36"), "preprocessing cannot be used"),
        (lambda card: with_spec(card, interpolation="area"), "preprocessing cannot be used"),
        (lambda card: with_spec(card, mean=[0.3] * 3, std=[0.3] * 3), r"preprocessing\.mean has 3 numbers for 1 ch"),
        (lambda card: with_spec(card, image_size=28), r"input\.shape is \[3, 1, 32, 32\] but .* \[1, 28, 28\]"),
        (lambda card: {**card, "input": {**card["input"], "shape": None}}, r"input\.shape is None"),
        (
            lambda card: {**card, "labels": ["a"], "classes": ["a"]},
            r"output\.shape is \[3, 10\] but there are 3 images and 1 labels",
        ),
    ],
    ids=[
        "cut",
        "encoding",
        "list",
        "labels",
        "sha256",
        "empty",
        "resize",
        "interpolation",
        "mean",
        "size",
        "input",
        "count",
    ],
)
def test_bad_descriptions_are_refused(copied, change, message):
    """A description that is no JSON, lacks something or contradicts itself is named with what is wrong."""
    path = card_path(copied["onnx"])
    changed = change(json.loads(path.read_text()))
    path.write_bytes(changed.encode("latin-1") if isinstance(changed, str) else json.dumps(changed).encode())
    with pytest.raises(UserError, match=rf"\.onnx\.json.*{message}"):
        open_predictor(copied["onnx"])


def with_spec(card, **changes):
    return {**card, "preprocessing": {**card["preprocessing"], **changes}}


def call(*arguments):
    """Run Python in the root folder; return its exit code and what it prints to the two streams."""
    words = [sys.executable, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=120)
    return done.returncode, done.stdout, done.stderr


def test_the_scripts(run, tmp_path):
    """`export.py` and `infer.py` do the whole way from the command line and report it on standard output alone."""
    folder = Path(run.output_dir)
    arguments = ["--config", folder / "config.yaml", "--checkpoint", folder / "best.ckpt", "--output_dir", tmp_path]
    code, out, _ = call("export.py", *arguments, "--format", "onnx", "--batch_size", "1")
    assert code == 0
    model = tmp_path / "resnet26_32_b1.onnx"
    assert out.startswith(f"{model}: ") and len(out.splitlines()) == 1
    images = Path(run.data.data_dir)
    code, out, _ = call("infer.py", "--model", model, "--image", images, "--topk", "2", "--json")
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    expected = [
        {"image": str(path), "topk": [{"label": label, "probability": pytest.approx(p, rel=1e-4)} for label, p in best]}
        for path, best in classified(exported(run, "onnx"), find_images(images), 2)
    ]
    assert lines == expected
    code, out, _ = call("infer.py", "--model", model, "--image", images, "--topk", "2")
    rows = []
    for line in lines:
        rows += [line["image"], *(f"{100 * best['probability']:9.2f} %  {best['label']}" for best in line["topk"])]
    assert code == 0 and out.splitlines() == rows


def test_mistakes_end_in_one_line(run, tmp_path):
    """From the command line, too, a mistake is one line on standard error and exit code 2."""
    folder = Path(run.output_dir)
    arguments = ["--config", folder / "config.yaml", "--checkpoint", folder / "best.ckpt", "--output_dir", tmp_path]
    for script, words, message in (
        ("export.py", [*arguments, "--format", "onnx,air"], "error: AIR is made by"),
        ("export.py", [*arguments, "--checkpoint", "nowhere.ckpt"], "error: no checkpoint nowhere.ckpt"),
        ("eval.py", ["--config", folder / "config.yaml", "--model", "x.onnx"], "error: cannot read model x.onnx"),
        (
            "infer.py",
            ["--model", exported(run, "mindir"), "--image", run.data.data_dir, "--device_target", "Ascend"],
            "error: no usable Ascend device",
        ),
        ("infer.py", ["--model", "x.onnx", "--image", "x.png", "--topk", "0"], "error: --topk is 0"),
        ("infer.py", ["--model", "x.onnx", "--image", "x.png", "--num_workers", "-1"], "error: --num_workers is -1"),
        (
            "infer.py",
            ["--model", "x.onnx", "--image", "x.png", "--threads", "2", "--device_target", "GPU"],
            "error: --threads is for ONNX on the CPU",
        ),
    ):
        code, _, err = call(script, *words)
        assert code == 2 and err.startswith(message) and len(err.splitlines()) == 1


def test_a_wrong_export_is_no_mistake_of_the_user(run, tmp_path):
    """It ends as one line and exit code 1."""
    folder = Path(run.output_dir)
    strict = "from src.deploy.options import Options; Options.tolerance = -1; from export import main; main()"
    code, _, err = call(
        "-c", strict, "--config", folder / "config.yaml", "--checkpoint", folder / "best.ckpt", "--output_dir", tmp_path
    )
    assert code == 1 and err.startswith("error: the exported resnet26_32_b1.mindir differs")
    assert len(err.splitlines()) == 1 and list(tmp_path.iterdir()) == []
