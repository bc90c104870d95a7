# SPDX-License-Identifier: Apache-2.0
"""A run that was stopped, killed, damaged or disturbed goes on as if nothing had been, or says why it cannot."""

import _thread
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from same_run import after, assert_same_run, interrupt, weights_of
from tiny_training import changed

from src.device import World
from src.errors import UserError
from src.models import create_model
from src.tasks import class_judge, create_task
from src.training import trainer
from src.training.checkpoint import read_checkpoint
from src.training.metrics import read_metrics
from src.training.monitor import Plan, path_weights
from src.training.preemption import StopRequest
from src.training.run_folder import RunFolder

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def config(thorough):
    return thorough


@pytest.mark.parametrize("step", [2 * 6, 2 * 6 + 3])
def test_a_killed_run_goes_on_exactly(config, whole, step, monkeypatch, capsys):
    """Protects exact resuming from the last save, between epochs and inside one, also of stochastic depth."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        after(step, interrupt, patch)
        trainer.train(create_task(config), World(), resume="auto")
    result = trainer.train(create_task(config), World(), resume="auto")
    saved = {12: 10, 15: 14}[step]
    assert f"after epoch {saved // 6}, step {saved}" in capsys.readouterr().err
    assert_same_run(whole, config)
    assert trainer.train(create_task(config), World(), resume=f"{config.output_dir}/../run/last.ckpt") == result


def test_sigterm_saves_and_ends_at_the_next_step(config, whole, monkeypatch):
    """Protects preemptible nodes: nothing done is lost, wherever the request falls, and the handler is given back."""
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        after(9, lambda: os.kill(os.getpid(), signal.SIGTERM), patch)
        result = trainer.train(create_task(config), World())
    assert result["is_stopped"] and result["step"] == 9 and signal.getsignal(signal.SIGTERM) == before
    assert not trainer.train(create_task(config), World(), resume="auto")["is_stopped"]
    assert_same_run(whole, config)


def test_ctrl_c_saves_and_ends_as_interrupted(config, whole, monkeypatch):
    """Protects chains of commands: what was done is kept, and what follows does not run; a second one ends at once."""
    with (
        monkeypatch.context() as patch,
        pytest.raises(KeyboardInterrupt, match="stopped at step 9, and saved; "),
    ):
        after(9, _thread.interrupt_main, patch)
        trainer.train(create_task(config), World())
    assert read_checkpoint(f"{config.output_dir}/last.ckpt")[1]["step"] == 9
    with StopRequest().listen() as stop, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
        assert stop.is_made
        signal.raise_signal(signal.SIGINT)
    trainer.train(create_task(config), World(), resume="auto")
    assert_same_run(whole, config)


def test_sigterm_in_evaluations(config, whole, monkeypatch):
    """Protects preemptible nodes from a long evaluation, of the averages and of the end too: left, and done again."""
    judge, judged, stops = class_judge._filled_up, [], {2 * (8 + 2): 12, 2 * (8 + 2 + 2 * 8 + 7): 24}

    def counted(rows, batch_size):
        judged.append(rows)
        # Images and labels of each batch pass here; 15 images make 4 batches, for weights and for averages.
        if len(judged) in stops:
            os.kill(os.getpid(), signal.SIGTERM)
        return judge(rows, batch_size)

    monkeypatch.setattr(class_judge, "_filled_up", counted)
    for batches, step in stops.items():
        result = trainer.train(create_task(config), World(), resume="auto")
        assert result["is_stopped"] and (result["step"], result["epoch"]) == (step, step // 6 - 1)
        assert len(judged) == batches
    assert not trainer.train(create_task(config), World(), resume="auto")["is_stopped"]
    assert_same_run(whole, config)


@given(
    images=st.integers(1, 60), workers=st.integers(2, 7), batch_size=st.integers(1, 5), log_interval=st.integers(1, 4)
)
def test_workers_leave_an_evaluation_together(images, workers, batch_size, log_interval):
    """Protects from a worker that waits for ever: all agree before the same batches, however unlike their shares."""
    asked = []
    for rank in range(workers):
        run = SimpleNamespace(
            world=World(rank, workers),
            plan=Plan(1, batch_size * workers, [], images // (batch_size * workers)),
            config=SimpleNamespace(train=SimpleNamespace(log_interval=log_interval)),
            should_stop=lambda: True,
        )
        batches = range(math.ceil(len(range(rank, images, workers)) / batch_size))
        asked.append([batch for batch in batches if trainer.Trainer.should_leave(run, batch)])
    assert all(numbers == asked[0] for numbers in asked)
    assert asked[0][:1] == [0] * (images >= batch_size * workers)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(config, whole, monkeypatch, capsys):
    """Protects from a bad disk: the run loses the steps of one checkpoint, not all."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        after(15, interrupt, patch)
        trainer.train(create_task(config), World())
    last = Path(config.output_dir) / "last.ckpt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    with pytest.raises(UserError, match=r"checkpoint .*last\.ckpt is damaged"):
        trainer.train(create_task(changed(config, output_dir=config.output_dir + "2")), World(), resume=str(last))
    trainer.train(create_task(config), World(), resume="auto")
    said = capsys.readouterr().err
    assert f"{last} is damaged" in said and "taking the one before it" in said
    assert "last-1.ckpt after epoch 2, step 12" in said
    assert_same_run(whole, config)


@pytest.mark.parametrize("keep", [1, 3])
def test_the_newest_are_kept(config, keep):
    """Protects disk space and the road back: as many as asked, the newest named last.ckpt."""
    trainer.train(create_task(changed(config, train={"keep_checkpoints": keep, "epochs": 1})), World())
    kept = sorted(Path(config.output_dir).glob("last*.ckpt"))
    assert [path.name for path in kept] == ["last-1.ckpt", "last-2.ckpt", "last.ckpt"][3 - keep :]
    assert [read_checkpoint(path)[1]["step"] for path in kept] == [4, 2, 6][3 - keep :]


def test_a_length_in_steps(config, monkeypatch, capsys):
    """Protects `train.steps`: it ends inside an epoch; stopped anywhere, it goes on bit for bit."""
    config = changed(config, train={"epochs": 100, "steps": 15, "eval_epochs": 2})
    stopped = changed(config, output_dir=config.output_dir + "2")
    result = trainer.train(create_task(config), World())
    assert (result["epoch"], result["step"]) == (3, 15) and result["samples"] == 15
    said = capsys.readouterr().err
    assert "epoch 2/3  step 6/6" in said and "epoch 3/3  step 3/3" in said and "left 0:00:00" in said
    lines = read_metrics(f"{config.output_dir}/metrics.jsonl")
    assert [line["step"] for line in lines if line["kind"] == "train"] == [2, 4, 6, 8, 10, 12, 14, 15]
    assert [line["step"] for line in lines if line["kind"] == "eval"] == [12, 15] and lines[-3]["lr"] == 0
    for step in (6, 3, 5):  # at the end of an epoch without evaluation, inside the next, and of the last
        with monkeypatch.context() as patch:
            after(step, lambda: os.kill(os.getpid(), signal.SIGTERM), patch)
            assert trainer.train(create_task(stopped), World(), resume="auto")["is_stopped"]
    assert trainer.train(create_task(stopped), World(), resume="auto") == pytest.approx(result, rel=1e-5)
    expected, got = (weights_of(f"{each.output_dir}/last.ckpt") for each in (config, stopped))
    assert all(np.array_equal(got[name], value) for name, value in expected.items())
    others = read_metrics(f"{stopped.output_dir}/metrics.jsonl")
    assert [(line["kind"], line["step"]) for line in others] == [(line["kind"], line["step"]) for line in lines]
    with pytest.raises(UserError, match=r"is at step 15 and this training ends with step 13; give a larger"):
        trainer.train(create_task(changed(config, train={"steps": 13})), World(), resume="auto")


def test_steps_and_epochs_of_one_length_are_the_same(config, whole):
    """Protects the one loop behind both."""
    trainer.train(create_task(changed(config, train={"epochs": 100, "steps": 24})), World())
    assert_same_run(whole, config)


def test_a_longer_run_goes_on_inside_the_epoch_that_was_cut_short(config):
    """Protects the order of the images: with a schedule without an end, 9 steps and 24 are as 24."""
    config = changed(config, train={"epochs": 100, "steps": 24}, scheduler={"name": "constant"})
    short = changed(config, train={"steps": 9}, output_dir=config.output_dir + "2")
    trainer.train(create_task(config), World())
    assert trainer.train(create_task(short), World())["epoch"] == 2
    result = trainer.train(create_task(changed(short, train={"steps": 24})), World(), resume="auto")
    assert (result["epoch"], result["step"]) == (4, 24)
    expected, got = (weights_of(f"{each.output_dir}/last.ckpt") for each in (config, short))
    assert all(np.array_equal(got[name], value) for name, value in expected.items())


def test_two_runs_in_one_folder(config):
    """Protects the files of a run from another one that started by mistake; it leaves when the first has ended."""
    short = changed(config, train={"epochs": 1})
    with RunFolder(config.output_dir).taken():
        with pytest.raises(
            UserError, match=rf"another run \(process {os.getpid()} on .*\) is writing to output folder"
        ):
            trainer.train(create_task(short), World())
        assert [path.name for path in Path(config.output_dir).iterdir()] == [".lock"]
    trainer.train(create_task(short), World())


def test_another_setting_is_refused_or_allowed(config, tmp_path):
    """Protects from a learning rate at the wrong place; who says so goes on from the last whole epoch."""
    trainer.train(create_task(changed(config, train={"epochs": 1}, scheduler={"warmup_epochs": 0.0})), World())
    last = f"{config.output_dir}/last.ckpt"
    other = changed(config, output_dir=str(tmp_path / "other"), data={"batch_size": 8})
    with pytest.raises(UserError, match=r"batch size 4, now 8; steps per epoch 6, now 3; .*--allow_changes"):
        trainer.train(create_task(other), World(), resume=last)
    with pytest.raises(UserError, match="workers 1, now 2; steps per epoch 6, now 3; resume"):
        trainer.train(create_task(config), World(0, 2), resume=last)
    result = trainer.train(create_task(other), World(), resume=last, allow_changes=True)
    assert (result["epoch"], result["step"]) == (4, 4 * 3)
    lines = [line for line in read_metrics(f"{other.output_dir}/metrics.jsonl") if line["kind"] == "train"]
    assert [line["step"] for line in lines] == [5, 6, 8, 9, 11, 12] and lines[-1]["lr"] == 0
    with pytest.raises(UserError, match=r"no checkpoint .*absent\.ckpt"):
        trainer.train(create_task(other), World(), resume=str(tmp_path / "absent.ckpt"))
    for changes, message in (
        (
            {"optimizer": {"name": "adamw"}},
            r"optimizer\.name momentum, now adamw; resume with the same, or begin a new",
        ),
        ({"optimizer": {"ema_decay": 0.0}}, r"optimizer\.ema_decay 0\.9, now 0\.0; resume"),
    ):
        with pytest.raises(UserError, match=message):
            trainer.train(create_task(changed(other, **changes)), World(), resume=last)
    with pytest.raises(UserError, match=r"model\.name tiny_for_tests, now resnet26; .*--pretrained"):
        model = {"name": "resnet26", "drop_path_rate": 0.0, "options": {"stem": "small", "width": 8}}
        trainer.train(create_task(changed(other, model=model)), World(), resume=last)


def test_one_image_more_is_refused(config, image_folder, tmp_path):
    """Protects the order of the images: with as many steps, another image would move all others."""
    more = changed(config, data={"data_dir": str(tmp_path / "more")}, train={"epochs": 1})
    shutil.copytree(image_folder, tmp_path / "more")
    trainer.train(create_task(changed(config, train={"epochs": 1})), World())
    shutil.copy(tmp_path / "more" / "train" / "class0" / "0.png", tmp_path / "more" / "train" / "class0" / "9.png")
    with pytest.raises(UserError, match=r"is of another run: images 24, now 25; resume with the same ones"):
        trainer.train(create_task(more), World(), resume="auto")


def test_what_changed_is_said(config, capsys):
    """Protects from a schedule that jumps unseen: a longer run goes on, and says what is another now."""
    trainer.train(create_task(changed(config, train={"epochs": 2})), World())
    trainer.train(create_task(changed(config, train={"epochs": 3, "log_interval": 3})), World(), resume="auto")
    said = capsys.readouterr().err
    assert "changed since this checkpoint: train.epochs 2, now 3\n" in said
    assert re.search(r"the learning rate jumps from 0\.\d+ to 0\.\d+: the schedule is another one now", said)


def test_steps_without_finite_gradients(config, monkeypatch):
    """Protects the weights from one bad batch, and days of training from many: skipped while told, then a stop."""
    iterate = trainer.iterate

    def with_a_bad_batch(dataset):
        for number, (image, label) in enumerate(iterate(dataset)):
            yield (image * float("nan") if number == 2 else image), label

    monkeypatch.setattr(trainer, "iterate", with_a_bad_batch)
    config = changed(config, train={"skip_nonfinite": 2, "epochs": 2})
    trainer.train(create_task(config), World())
    lines = [line for line in read_metrics(f"{config.output_dir}/metrics.jsonl") if line["kind"] == "train"]
    assert [line["skipped"] for line in lines] == [0, 1, 0, 0, 1, 0]
    assert all(np.isfinite(value).all() for value in weights_of(f"{config.output_dir}/last.ckpt").values())
    strict = changed(config, train={"skip_nonfinite": 1}, output_dir=config.output_dir + "2")
    with pytest.raises(
        UserError, match=r"gradients nan at step 9 \(epoch 2, learning rate .*; last checkpoint: .*last"
    ):
        trainer.train(create_task(strict), World())


def test_a_clock_that_jumps(config, monkeypatch, capsys):
    """Protects the reports: speeds and times left come from a clock that nobody sets."""
    now = iter(np.random.default_rng(0).uniform(-1e9, 4e9, 10**6))
    monkeypatch.setattr(time, "time", lambda: next(now))
    trainer.train(create_task(changed(config, train={"epochs": 1})), World())
    lines = [line for line in read_metrics(f"{config.output_dir}/metrics.jsonl") if line["kind"] == "train"]
    assert all(0 < line["images_per_s"] < 1e6 and 0 <= line["data_wait"] <= 1 for line in lines[1:])
    assert "left -1 day" not in capsys.readouterr().err


def test_paths_are_watched():
    """Protects alpha and beta of each operator in the reports; norms, which have a beta too, are none."""
    network = create_model("acmix_resnet26", num_classes=2, image_size=32, stem="small", width=8)
    weights = path_weights(network)
    assert set(weights) == {"alpha", "beta"} and len(weights["alpha"]) == len(weights["beta"]) == 8
    assert set(weights["alpha"].values()) == {0.5}


TRAIN = """
model:
  name: acmix_resnet26
  num_classes: 3
  image_size: 8
  in_channels: 1
  options: {stem: small, width: 8, depths: [1, 1, 1, 1]}
data: {batch_size: 4, num_workers: 1, resize: 8, mean: [0.5], std: [0.5]}
scheduler: {warmup_epochs: 0}
train: {epochs: 1000, log_interval: 1}
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_command(image_folder, tmp_path, number):
    """Protects `kill` and Ctrl-C: all is saved, a line says how to go on; 0 as asked, 130 as interrupted."""
    (tmp_path / "c.yaml").write_text(TRAIN)
    run = tmp_path / "run"
    words = ["--config", tmp_path / "c.yaml", "--data_dir", image_folder, "--output_dir", run]
    command = [sys.executable, ROOT / "train.py", *map(str, words)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 120
    while not (run / "last.ckpt").exists() and time.time() < deadline:
        time.sleep(0.05)
    child.send_signal(number)
    out, err = child.communicate(timeout=60)
    assert child.returncode == {signal.SIGTERM: 0, signal.SIGINT: 130}[number], err
    lines = read_metrics(run / "metrics.jsonl")
    _, meta = read_checkpoint(run / "last.ckpt")
    if number == signal.SIGINT:
        assert err.endswith(f"stopped at step {meta['step']}, and saved; --resume auto goes on from there\n")
        return
    assert out == f"stopped at step {meta['step']} as asked, and saved; --resume auto goes on from there\n"
    assert meta["step"] == max(line["step"] for line in lines)
    paths = [line for line in lines if line["kind"] == "paths"]
    assert paths and len(paths[0]["alpha"]) == 4
    tags = event_tags(next(run.glob("events.out.tfevents.*")))
    first = next(iter(paths[0]["alpha"]))
    assert {"train/loss", "train/gradient_norm", "train/images_per_s", "eval/top1", f"paths/alpha/{first}"} <= tags
    assert "train/loss_scale" not in tags and json.dumps(meta)


def event_tags(path):
    """The names of the numbers in a file of events: records of a length, its checksum, a message, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    content, tags = path.read_bytes(), set()
    while content:
        length = int.from_bytes(content[:8], "little")
        event = Event.FromString(content[12 : 12 + length])
        tags |= {value.tag for value in event.summary.value}
        content = content[12 + length + 4 :]
    return tags
