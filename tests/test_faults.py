# SPDX-License-Identifier: Apache-2.0
"""Disks that fill up, folders that vanish or cannot be written, kills in the midst of a save: nothing saved is lost."""

import os
import resource
import subprocess
import sys
import tempfile
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mindspore.dataset import NumpySlicesDataset
from same_run import after, assert_same_run
from tiny_training import changed, write_images

from src.device import World
from src.errors import UserError
from src.tasks import create_task
from src.training import trainer
from src.training.checkpoint import read_checkpoint
from src.training.monitor import Plan
from src.training.reports import Reports
from src.training.run_folder import RunFolder

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def config(thorough):
    return thorough


@contextmanager
def full_disk():
    """Within it no file can grow beyond 1000 bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk(config, whole, monkeypatch):
    """Protects the checkpoint before: one line names the file that could not be written, and the run goes on later."""
    save, saves = trainer.save_training_state, []

    def save_until_it_is_full(*words):
        saves.append(words)
        with full_disk() if len(saves) == 6 else nullcontext():
            save(*words)

    last = Path(config.output_dir, "last.ckpt")
    with monkeypatch.context() as patch, pytest.raises(UserError, match=rf"^cannot write {last}: File too large"):
        patch.setattr(trainer, "save_training_state", save_until_it_is_full)
        trainer.train(create_task(config), World())
    assert read_checkpoint(last)[1]["step"] == 6 + 4
    assert not list(last.parent.glob("*.tmp*"))
    trainer.train(create_task(config), World(), resume="auto")
    assert_same_run(whole, config)


@pytest.mark.parametrize("file", ["metrics.jsonl", "events"])
def test_reports_on_a_full_disk(config, file):
    """Protects from a traceback where it is a report that finds no room."""
    folder = RunFolder(config.output_dir)
    folder.path.mkdir()
    reports = Reports(config, folder, Plan(6, 4, np.zeros(18), 3), str)
    reports.begin(None, [], {"epoch": 0, "step": 0})
    reports.metrics.write = {"metrics.jsonl": reports.metrics.write, "events": lambda *_: None}[file]
    with full_disk(), pytest.raises(UserError, match=rf"^cannot write {folder.path}/{file}.*: File too large"):
        for step in range(100):
            reports.write("train", {"epoch": 1, "step": step, "loss": 1.0})


@contextmanager
def as_nobody():
    """Not as root, whom permissions do not stop."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_read_only_output_folder(config):
    """Protects from hours of training that cannot be saved: refused at once, whether the folder is there or not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in (folder / "run", folder):
            path.mkdir(exist_ok=True)
            path.chmod(0o555)
        for path in (folder / "run", folder / "new"):
            with (
                pytest.raises(UserError, match=rf"^cannot write output folder {path} \(Permission denied\)"),
                as_nobody(),
            ):
                trainer.train(create_task(changed(config, output_dir=str(path))), World())
        folder.chmod(0o755)


def test_a_data_folder_that_disappears(config, whole, tmp_path, monkeypatch):
    """Protects days of training from an unmounted disk: one line names it, and the run goes on when it is back."""
    images = write_images(tmp_path / "images")
    config = changed(config, data={"data_dir": str(images)})
    with monkeypatch.context() as patch, pytest.raises(UserError, match=f"data folder {images}"):
        after(6 + 3, lambda: images.rename(f"{images} away"), patch)
        trainer.train(create_task(config), World())
    Path(f"{images} away").rename(images)
    trainer.train(create_task(config), World(), resume="auto")
    assert_same_run(whole, config)


def test_images_that_disappear():
    """Protects the count of steps and epochs from a folder that lost images: the epoch is refused, not cut short."""

    def five_batches(split, world, epoch):
        return NumpySlicesDataset((np.zeros((20, 2)), np.zeros(20)), shuffle=False).batch(4)

    run = SimpleNamespace(
        plan=Plan(6, 4, np.zeros(18), 3),
        config=SimpleNamespace(data=SimpleNamespace(data_dir="images")),
        world=World(),
        task=SimpleNamespace(batches=five_batches),
    )
    batches = trainer.Trainer.batches(run, 3, 2)
    assert len([next(batches) for _ in range(3)]) == 3
    with pytest.raises(UserError, match=r"^epoch 3 has 5 steps but had 6 when the run began: images of"):
        next(batches)


KILLS = """
import itertools, os, random, signal, sys, time
import numpy as np, mindspore as ms
from mindspore import nn
from src.config import OptimizerConfig
from src.training.checkpoint import read_checkpoint, save_training_state
from src.training.optimizer import create_optimizer
from src.training.run_folder import RunFolder

folder = RunFolder(sys.argv[1])
network = nn.SequentialCell([nn.Dense(32, 32) for _ in range(20)])
optimizer = create_optimizer(network, OptimizerConfig(), np.zeros(1, np.float32))

def save_for_ever(first):
    for number in itertools.count(first):
        for parameter in network.get_parameters():
            parameter.set_data(ms.Tensor(np.full(parameter.shape, number, np.float32)))
        save_training_state(folder.last, network, optimizer, {"number": number}, make_room=folder.make_room)

def number_of(path):
    parameters, meta = read_checkpoint(path)
    assert len(parameters) > 40
    assert all((parameters[name].asnumpy() == meta["number"]).all() for name in ("0.weight", "19.bias"))
    return meta["number"]

number, numbers, rng = 0, [], random.Random(0)
for _ in range(int(sys.argv[2])):
    with folder.taken():
        child = os.fork()
        if child == 0:
            save_for_ever(number + 1)
        deadline = time.monotonic() + 30
        while not folder.last.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.uniform(0.0, 0.1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    number = number_of(folder.last)
    numbers.append(number)
    if folder.kept[1].exists():
        assert number_of(folder.kept[1]) in (number - 1, number)
with folder.taken():
    print(numbers == sorted(numbers), len(set(numbers)), *sorted(os.listdir(sys.argv[1])))
"""


def test_kills_at_many_moments_of_a_save(tmp_path):
    """Protects the last two checkpoints from SIGKILL: whatever moment it falls on, each is one whole state."""
    command = [sys.executable, "-c", KILLS, tmp_path, "25"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    is_sorted, different, *files = done.stdout.split()
    assert is_sorted == "True" and int(different) > 4 and files == [".lock", "last-1.ckpt", "last.ckpt"]
