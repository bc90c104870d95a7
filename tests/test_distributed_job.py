# SPDX-License-Identifier: Apache-2.0
"""run_distribute_train_*.sh around msrun: the job itself, its exit code, and what a signal leaves behind."""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from shell import ROOT, SCRIPTS, bash, program, settings, working_directory


@pytest.fixture
def here(tmp_path):
    return working_directory(tmp_path)


MSRUN = """#!{python}
import os, pathlib, signal, subprocess, sys, time
(log_dir,) = [word.partition("=")[2] for word in sys.argv if word.startswith("--log_dir=")]
pathlib.Path(log_dir).mkdir(parents=True)
{body}
"""


def heed_signals():
    """Undo what nohup or a shell's & did to the test run: bash cannot trap a signal it was started to ignore."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def distribute(here, body):
    """Start run_distribute_train_cpu.sh on a msrun with this body."""
    program(here / "bin" / "msrun", MSRUN.format(python=sys.executable, body=body))
    return subprocess.Popen(
        ["bash", SCRIPTS / "run_distribute_train_cpu.sh", "2", "c.yaml"],
        cwd=here,
        env=settings(ACMIX_PYTHON="bin/python"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_signals,
    )


FAILED = "the job has failed; its logs are in logs/c-"


@pytest.mark.parametrize(
    ("body", "status", "last_line"),
    [
        pytest.param("print('fine', file=sys.stderr)", 0, "fine", id="success"),
        pytest.param("sys.exit(1)", 1, FAILED, id="a worker failed"),
        pytest.param("sys.exit(5)", 5, FAILED, id="msrun failed"),
        pytest.param(
            "pathlib.Path(log_dir, 'worker_1.log').write_text('error: no images'); sys.exit(1)",
            2,
            "error: no images",
            id="mistake of the caller",
        ),
    ],
)
def test_exit_code_of_a_job(here, body, status, last_line):
    """The job's exit code is passed on; a worker's mistake of the caller is 2 and its line, not msrun's 1."""
    job = distribute(here, body)
    _, errors = job.communicate(timeout=30)
    assert job.returncode == status
    assert errors.splitlines()[-1].startswith(last_line)


def test_msrun_finds_the_right_python(here):
    """msrun starts `python` from the PATH: the first has to be the one that was chosen; MASTER_PORT is free."""
    body = "import shutil; print(shutil.which('python'), *sys.argv)"
    output, _ = distribute(here, body).communicate(timeout=30)
    assert output.split()[0] == f"{here}/bin/python"
    (port,) = re.findall(r"--master_port=(\d+)", output)
    assert 10000 <= int(port) < 30000


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_killed_job_leaves_no_workers(here, number, status):
    """As the real one, this msrun ignores SIGINT until its workers run, then stops them and reports success."""
    job = distribute(
        here,
        """
time.sleep(0.5)
worker = subprocess.Popen(["sleep", "60"], start_new_session=True)
def stop(*_):
    worker.kill()
    worker.wait()
    sys.exit(0)
signal.signal(signal.SIGINT, stop)
print(worker.pid, flush=True)
for _ in range(300):  # bounded, should the test fail
    time.sleep(0.1)
""",
    )
    worker = int(job.stdout.readline())
    job.send_signal(number)
    assert job.wait(timeout=30) == status
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


def test_two_workers_train(tmp_path):
    """The CPU job of two workers as a user starts it: trains on all images, evaluates each once, ends with 0."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 5)):
        for label in ("a", "b"):
            folder = tmp_path / "images" / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(folder / f"{i}.png")
    process = bash(
        *(SCRIPTS / "run_distribute_train_cpu.sh", 2, ROOT / "config" / "acmix_resnet_digits.yaml", "images"),
        *("--data.name", "image_folder", "--data.batch_size", 4, "--train.epochs", 1, "--train.log_interval", 1),
        *("--model.name", "resnet26", "--model.num_classes", 2, "--model.options.width", 8, "--output_dir", "run"),
        cwd=tmp_path,
        ACMIX_PYTHON=sys.executable,
    )
    assert process.returncode == 0, process.stdout[-2000:] + process.stderr[-2000:]
    *steps, evaluation = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert [step["step"] for step in steps] == [1, 2]
    assert evaluation["samples"] == 10
    assert (tmp_path / "run" / "last.ckpt").is_file()
    (logs,) = (tmp_path / "logs").iterdir()
    assert {path.name for path in logs.iterdir()} == {"scheduler.log", "worker_0.log", "worker_1.log"}
