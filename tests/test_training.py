# SPDX-License-Identifier: Apache-2.0
"""A training as a whole: it learns, reports, counts every image once, and goes on after a kill as if there was none."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from tiny_training import CLASSES, changed

from src.config import load_config
from src.device import World
from src.errors import UserError
from src.tasks import create_task
from src.tasks.class_judge import ClassJudge, EvaluationStep
from src.tasks.classification import Classification
from src.training import trainer
from src.training.checkpoint import read_checkpoint
from src.training.curves import plot_curves
from src.training.evaluate import evaluate
from src.training.metrics import MetricsLog, read_metrics
from src.training.monitor import Plan
from src.training.pretrained import Loaded
from src.training.progress import Progress

ROOT = Path(__file__).resolve().parent.parent


def test_training_learns_and_leaves_its_files(config, monkeypatch):
    """Protects the road from images to checkpoints: accuracy, files, metrics, best against last."""
    monkeypatch.setattr(trainer, "plot_curves", plot_curves)
    config = changed(config, train={"epochs": 12})
    result = trainer.train(create_task(config), World())
    run = Path(config.output_dir)
    names = {re.sub(r"tfevents.*", "", f.name) for f in run.iterdir()}
    checkpoints = {"last.ckpt", "last-1.ckpt", "best.ckpt"}
    assert names == {"config.yaml", "metrics.jsonl", "curves.png", "events.out.", ".lock"} | checkpoints
    assert result["best"] > 90 and result["samples"] == 5 * CLASSES and result["step"] == 12 * 6
    assert load_config(run / "config.yaml") == config
    lines = read_metrics(run / "metrics.jsonl")
    train = [line for line in lines if line["kind"] == "train"]
    evaluation = [line for line in lines if line["kind"] == "eval"]
    assert [line["step"] for line in train] == list(range(2, 73, 2))
    assert [line["epoch"] for line in evaluation] == list(range(1, 13))
    costs = {"images_per_s", "data_wait", "memory_gb"}
    assert set(train[0]) == {"kind", "epoch", "step", "loss", "lr", "gradient_norm", "skipped", "loss_scale"} | costs
    assert all(line["gradient_norm"] > 0 and line["skipped"] == 0 for line in train) and 0 <= train[9]["data_wait"] < 1
    assert set(evaluation[0]) == {"kind", "epoch", "step", "top1", "top5", "loss", "samples"}
    assert train[-1]["loss"] < train[0]["loss"] and train[2]["lr"] == pytest.approx(0.2) and train[-1]["lr"] == 0
    _, best = read_checkpoint(run / "best.ckpt")
    _, last = read_checkpoint(run / "last.ckpt")
    first_best = max(evaluation, key=lambda line: line["top1"])
    assert (best["epoch"], best["result"]["top1"]) == (first_best["epoch"], first_best["top1"])
    assert last["epoch"] == 12 and last["best"] == best["result"]["top1"] and last["model"]["name"] == "tiny_for_tests"


def test_starting_anew_keeps_the_earlier_run(config, capsys):
    """Protects days of training from a forgotten --resume."""
    config = changed(config, train={"epochs": 1})
    trainer.train(create_task(config), World())
    earlier = (Path(config.output_dir) / "last.ckpt").read_bytes()
    trainer.train(create_task(changed(config, train={"epochs": 1, "seed": 1})), World())
    assert (Path(config.output_dir) / "previous-1" / "last.ckpt").read_bytes() == earlier
    assert (Path(config.output_dir) / "last.ckpt").read_bytes() != earlier
    assert "--resume auto would have continued it" in capsys.readouterr().err


def test_lost_loss_stops_the_training(config):
    """Protects from epochs of NaN: the step, the learning rate and the last checkpoint are named."""
    trainer.train(create_task(changed(config, train={"epochs": 1})), World())
    lost = changed(config, optimizer={"lr": 1e30})
    with pytest.raises(UserError) as error:
        trainer.train(create_task(lost), World(), resume="auto")
    message = str(error.value)
    assert re.search(r"the loss is \S+ and the norm of its gradients \S+ at step ", message)
    assert "(epoch 2, learning rate 7.5e+29)" in message or "learning rate 9" in message
    assert f"last checkpoint: {config.output_dir}/last.ckpt" in message
    with pytest.raises(UserError, match="last checkpoint: none yet"):
        trainer.train(create_task(changed(lost, output_dir=config.output_dir + "2")), World())


def test_unknown_model_and_unwritable_folder_are_refused(config, tmp_path):
    """Protects the caller from a traceback, and from minutes of preparation before it."""
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write output folder .*file/run"):
        trainer.train(create_task(changed(config, output_dir=str(tmp_path / "file" / "run"))), World())
    with pytest.raises(UserError, match="model tiny_for_test: no model 'tiny_for_test'; nearest: tiny_for_tests"):
        trainer.train(create_task(changed(config, model={"name": "tiny_for_test"})), World())


class Lookup(nn.Cell):
    """Takes its logits out of the image itself: (B, 1, 1, K) -> (B, K)."""

    def construct(self, image):
        return image.reshape(image.shape[0], -1)


@pytest.mark.parametrize("classes, samples", [(10, 23), (3, 8), (10, 3)])
def test_evaluation_equals_numpy(classes, samples):
    """Protects the numbers: each image once also in a short last batch, top-min(5, K), unsmoothed loss."""
    ms.set_context(mode=ms.GRAPH_MODE)
    rng = np.random.default_rng(classes)
    logits = rng.standard_normal((samples, 1, 1, classes)).astype(np.float32)
    labels = rng.integers(0, classes, samples).astype(np.int32)
    dataset = ms.dataset.NumpySlicesDataset((logits, labels), ["image", "label"], shuffle=False).batch(8)
    result = evaluate(ClassJudge(EvaluationStep(Lookup()), logits[:8], range(classes)), dataset, World())
    rows = logits.reshape(samples, classes).astype(np.float64)
    rank = np.argsort(np.argsort(-rows, axis=1), axis=1)[np.arange(samples), labels]
    loss = np.log(np.exp(rows).sum(axis=1)) - rows[np.arange(samples), labels]
    assert result == {
        "top1": pytest.approx(100 * np.mean(rank == 0)),
        "top5": pytest.approx(100 * np.mean(rank < min(5, classes))),
        "loss": pytest.approx(loss.mean(), rel=1e-5),
        "samples": samples,
    }


def test_metrics_survive_a_cut_and_drop_what_is_redone(tmp_path):
    """Protects metrics.jsonl: a line cut by a kill is passed over, lines after the resumed step go."""
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    for step in range(1, 6):
        log.write("train", {"epoch": (step + 1) // 2, "step": step, "loss": 1.0})
    with open(path, "a") as file:
        file.write('{"kind": "train", "st')
    assert [line["step"] for line in read_metrics(path)] == [1, 2, 3, 4, 5]
    MetricsLog(path, epochs=1, step=3).write("eval", {"epoch": 2, "step": 4})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3, 4]


def test_curves_are_drawn_from_any_metrics(tmp_path):
    """Protects curves.png: eight panels, also of a run that has measured nothing, or no speed; each shows its own."""
    log = MetricsLog(tmp_path / "metrics.jsonl")

    def panels():
        plot_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png", Classification.drawn)
        picture = cv2.imread(str(tmp_path / "curves.png"))
        assert picture.shape == (1260, 3000, 3)
        return picture.reshape(2, 630, 4, 750, 3).swapaxes(1, 2).reshape(8, -1)

    empty = panels()
    first = {"epoch": 1, "step": 1, "loss": 2.0, "lr": 0.1, "gradient_norm": 3.0, "memory_gb": 1.0}
    log.write("train", {**first, "images_per_s": None, "data_wait": None})
    panels()
    log.write("train", {**first, "step": 2, "images_per_s": 90.0, "data_wait": 0.5})
    log.write("eval", {"epoch": 1, "step": 2, "top1": 20.0, "top5": 60.0, "loss": 1.5})
    log.write("paths", {"epoch": 1, "step": 2, "alpha": {"a": 0.5, "b": 0.4}, "beta": {"a": 0.6, "b": 0.5}})
    assert (panels() != empty).any(axis=1).all()


def test_what_a_run_began_with_is_listed(config):
    """Protects from weights that were not loaded and nobody saw: three lists in the run's folder, which go with it."""
    began = changed(config, finetune={"pretrained": "a.ckpt"}, train={"epochs": 1})
    task = create_task(began)
    task.load_pretrained = lambda network, path: Loaded(
        f"began with {path}", ["conv.weight"], ["fc.weight"], ["x", "y"]
    )
    trainer.train(task, World())
    file = Path(config.output_dir, "pretrained.txt")
    expected = (
        "began with a.ckpt||1 loaded|  conv.weight||1 new in this network|  fc.weight||2 left over in the file|  x|  y|"
    )
    assert file.read_text() == expected.replace("|", "\n")
    trainer.train(create_task(changed(began, train={"epochs": 2})), World(), resume="auto")
    assert file.exists()
    trainer.train(create_task(changed(config, train={"epochs": 1})), World())
    assert not file.exists() and (file.parent / "previous-1" / file.name).exists()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(monkeypatch, capsys):
    """Protects both forms of progress; a log file gets plain lines without control codes."""
    report = {"epoch": 3, "step": 15, "loss": 1.5, "lr": 6.25e-6, "images_per_s": 123.4}
    expected = "loss 1.5000  lr 6.25e-06  123.4 images/s  left 1:00:05"
    for screen in (None, Terminal()):
        with monkeypatch.context() as patch:
            if screen:
                patch.setattr(sys, "stderr", screen)
            progress = Progress(Plan(6, 4, np.zeros(16), 3))
            progress.begin_epoch(3, done=2)
            progress.advance()
            progress.show(report, seconds_left=3605)
            progress.end_epoch()
    assert capsys.readouterr().err == f"epoch 3/3  step 3/4  {expected}\n"
    assert "epoch 3/3" in screen.getvalue() and expected in screen.getvalue() and "3/4" in screen.getvalue()


TRAIN = """
model:
  name: resnet26
  num_classes: 3
  image_size: 8
  in_channels: 1
  options: {stem: small, width: 4, depths: [1, 1, 1, 1]}
data: {batch_size: 4, num_workers: 1, resize: 8, mean: [0.5], std: [0.5]}
scheduler: {warmup_epochs: 0}
train: {epochs: 1000, log_interval: 1}
"""


def run(script, *arguments):
    command = [sys.executable, ROOT / script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_killed_train_script_goes_on_and_eval_reads_it(image_folder, tmp_path):
    """Protects the commands: train.py killed by SIGKILL, resumed to its end, eval.py agreeing with the training."""
    (tmp_path / "c.yaml").write_text(TRAIN)
    common = ["--config", tmp_path / "c.yaml", "--data_dir", image_folder, "--output_dir", tmp_path / "run"]
    last = tmp_path / "run" / "last.ckpt"
    child = subprocess.Popen([sys.executable, ROOT / "train.py", *map(str, common)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.time() + 120
        while not last.exists() and time.time() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    _, meta = read_checkpoint(last)
    end = meta["epoch"] + 2
    resumed = run("train.py", *common, "--resume", "auto", "--train.epochs", end)
    assert resumed.returncode == 0, resumed.stderr
    assert f"resuming from {last} after epoch {meta['epoch']}" in resumed.stderr
    assert not list((tmp_path / "run").glob("*.tmp*"))
    _, meta = read_checkpoint(last)
    assert meta["epoch"] == end and f"for {end} epochs" in resumed.stdout
    evaluated = run("eval.py", *common, "--checkpoint", last)
    assert evaluated.returncode == 0, evaluated.stderr
    measured = json.loads(evaluated.stdout.splitlines()[-1])
    assert measured == pytest.approx(meta["result"], rel=1e-5)
    assert "images/s" in evaluated.stdout


@pytest.mark.parametrize("script", ["train.py", "eval.py"])
def test_scripts_refuse_in_one_line(script, image_folder, tmp_path):
    """Protects the commands' errors: exit code 2, one line `error: ...`, nothing else."""
    (tmp_path / "c.yaml").write_text(TRAIN)
    if script == "train.py":
        wrong = ["--output_dir", tmp_path / "c.yaml" / "run"]
    else:
        (tmp_path / "x.ckpt").write_bytes(b"no checkpoint")
        wrong = ["--checkpoint", tmp_path / "x.ckpt"]
    refused = run(script, "--config", tmp_path / "c.yaml", "--data_dir", image_folder, *wrong)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: ") and refused.stderr.count("\n") == 1
    assert refused.stdout == ""
