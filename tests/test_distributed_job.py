# SPDX-License-Identifier: Apache-2.0
"""run_distribute_train_*.sh around msrun: the job itself, its exit code, and what a signal leaves behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from shell import ROOT, SCRIPTS, free_port, program, settings, working_directory


@pytest.fixture
def here(tmp_path):
    return working_directory(tmp_path)


MSRUN = """#!{python}
import os, pathlib, signal, subprocess, sys, time
(log_dir,) = [word.partition("=")[2] for word in sys.argv if word.startswith("--log_dir=")]
log_dir = pathlib.Path(log_dir)
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
DEAD = """
(log_dir / "worker_0.log").write_text("process 31 on here, CPU device 0\\n")
(log_dir / "worker_1.log").write_text("process 3 on here, CPU device 1\\nin the middle of it\\n")
print("[ERROR] Worker process {process} exit with exception. Error code: {code}.", file=sys.stderr)
sys.exit(1)
"""


@pytest.mark.parametrize(
    ("body", "status", "last_lines"),
    [
        pytest.param("print('fine', file=sys.stderr)", 0, [], id="success"),
        pytest.param("print('why', file=sys.stderr); sys.exit(5)", 5, ["    why", FAILED], id="msrun failed"),
        pytest.param(
            DEAD.format(process=3, code=-9),
            1,
            ["    in the middle of it", f"worker 1, process 3, was killed by signal 9: {FAILED}"],
            id="a worker was killed",
        ),
        pytest.param(
            DEAD.format(process=31, code=4),
            1,
            ["CPU device 0", f"worker 0, process 31, ended with exit code 4: {FAILED}"],
            id="a worker failed",
        ),
        pytest.param(
            DEAD.format(process=7, code=-11),
            1,
            ["Error code: -11.", f"process 7 was killed by signal 11: {FAILED}"],
            id="a worker died before it could say anything",
        ),
        pytest.param(
            "(log_dir / 'worker_1.log').write_text('error: no images'); sys.exit(1)",
            2,
            [FAILED, "error: no images"],
            id="mistake of the caller",
        ),
    ],
)
def test_end_of_a_job(here, body, status, last_lines):
    """The exit code is passed on, with who failed and its last lines; a mistake of the caller is 2 and its line."""
    job = distribute(here, body)
    _, errors = job.communicate(timeout=30)
    assert job.returncode == status
    for line, expected in zip(errors.splitlines()[-len(last_lines) :], last_lines):
        assert expected in line


def test_msrun_finds_the_right_python(here):
    """msrun starts `python` from the PATH: the first has to be the one that was chosen; MASTER_PORT is free."""
    body = "import shutil; print(shutil.which('python'), *sys.argv)"
    output, _ = distribute(here, body).communicate(timeout=30)
    assert output.split()[0] == f"{here}/bin/python"
    (port,) = re.findall(r"--master_port=(\d+)", output)
    assert 10000 <= int(port) < 30000


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGHUP, 129)])
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


@pytest.mark.parametrize(("ends_with", "status"), [(0, 0), (3, 143)])
def test_sigterm_lets_the_workers_end(here, ends_with, status):
    """SIGTERM reaches the workers, who save and end, but not the scheduler, whom they need until then."""
    job = distribute(
        here,
        f"""
scheduler = subprocess.Popen(["sleep", "60"])
wait = "trap 'exit {ends_with}' TERM; echo ready; while :; do sleep 0.1; done"
worker = subprocess.Popen(["bash", "-c", wait], start_new_session=True, stdout=subprocess.PIPE)
worker.stdout.readline()
print("started", flush=True)
code = worker.wait()
is_alive = scheduler.poll() is None
scheduler.kill()
sys.exit(1 if code or not is_alive else 0)
""",
    )
    job.stdout.readline()
    job.send_signal(signal.SIGTERM)
    assert job.wait(timeout=30) == status


def train(folder, *options, **environment):
    """Start run_distribute_train_cpu.sh on 16 images to train on and 10 to evaluate on, batches of 4 a worker."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 5)):
        for label in ("a", "b"):
            images = folder / "images" / split / label
            images.mkdir(parents=True, exist_ok=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (32, 32), dtype=np.uint8)).save(images / f"{i}.png")
    command = [
        *("bash", SCRIPTS / "run_distribute_train_cpu.sh", *options[:1], ROOT / "config" / "acmix_resnet_digits.yaml"),
        *("images", "--data.name", "image_folder", "--data.batch_size", 4, "--train.log_interval", 1),
        *(
            "--model.name",
            "resnet26",
            "--model.num_classes",
            2,
            "--model.options.width",
            8,
            "--model.options.depths",
            "[1,1,1,1]",
        ),
        *("--output_dir", "run", "--scheduler.warmup_epochs", 0, *options[1:]),
    ]
    return subprocess.Popen(
        list(map(str, command)),
        cwd=folder,
        env=settings(ACMIX_PYTHON=sys.executable, **environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_signals,
    )


def test_two_machines_train(tmp_path):
    """Two machines with a worker each: one job that trains on all images, evaluates each once, and reports once.

    Both meet at 127.0.0.2. msrun asks `ip` whether that address is its own machine's; only the first is told so, and
    starts the scheduler.
    """
    program(tmp_path / "bin" / "ip", """echo '[{"addr_info": [{"local": "127.0.0.2"}]}]'""")
    port = free_port()
    nodes = ["--train.epochs", 1, "--nnodes", 2, "--master_addr", "127.0.0.2", "--master_port", port]
    first = train(tmp_path, 1, *nodes, "--node_rank", 0, PATH=f"{tmp_path}/bin:{os.environ['PATH']}")
    second = train(tmp_path, 1, *nodes, "--node_rank", 1)
    for job in (first, second):
        output, errors = job.communicate(timeout=120)
        assert job.returncode == 0, output[-2000:] + errors[-2000:]
        assert ("trained resnet26 for 1 epochs" in output) == (job is first)
    records = list(map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()))
    assert [record["step"] for record in records if "lr" in record] == [1, 2]
    (samples,) = [record["samples"] for record in records if "samples" in record]
    assert samples == 10
    assert (tmp_path / "run" / "last.ckpt").is_file()
    logs = {path.name for path in (tmp_path / "logs").glob("*-node0/*")}
    assert logs == {"msrun.log", "scheduler.log", "worker_0.log"}
    assert {path.name for path in (tmp_path / "logs").glob("*-node1/*")} == {"msrun.log", "worker_1.log"}


def test_a_dead_worker_ends_the_job(tmp_path):
    """A worker killed in training ends the job in time, with a code, its name and the reason; no process is left.

    The scheduler's patience is shortened from 15 seconds only for the test to be short.
    """
    job = train(tmp_path, 2, "--train.epochs", 1000, MS_NODE_TIMEOUT=5)
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run" / "last.ckpt").exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        processes = {}
        for path in (tmp_path / "logs").glob("*/worker_?.log"):
            processes[path.stem] = int(re.match(r"process (\d+) on ", path.read_text())[1])
        os.kill(processes["worker_1"], signal.SIGKILL)
        killed = time.monotonic()
        _, errors = job.communicate(timeout=60)
        assert time.monotonic() - killed < 40
    finally:
        job.terminate()
    assert job.returncode == 1
    assert f"worker 1, process {processes['worker_1']}, was killed by signal 9: the job has failed" in errors
    for process in processes.values():
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
