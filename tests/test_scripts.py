# SPDX-License-Identifier: Apache-2.0
"""The shell scripts: what they accept, and the command each ends in."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from shell import ROOT, SCRIPTS, bash, commands, program, refused, working_directory

DEVICES = {"ascend": "Ascend", "gpu": "GPU", "cpu": "CPU"}
PER_DEVICE = ("run_standalone_train", "run_distribute_train", "run_eval")
LAUNCHERS = [f"{kind}_{device}.sh" for kind in PER_DEVICE for device in DEVICES]
LAUNCHERS += ["run_export.sh", "run_infer_onnx.sh"]


@pytest.fixture
def here(tmp_path):
    return working_directory(tmp_path)


ALL = sorted([*SCRIPTS.glob("*.sh"), ROOT / ".ci" / "run"])


@pytest.mark.parametrize("script", ALL, ids=lambda script: script.name)
def test_is_clean(script):
    """Protects each script from a syntax error, a path of one machine, a lost licence line or executable bit."""
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    text = script.read_text()
    assert "SPDX-License-Identifier: Apache-2.0" in text
    assert str(ROOT) not in text
    assert str(Path.home()) + "/" not in text
    assert os.access(script, os.X_OK) == (script.name not in ("common.sh", "job.sh", "lite.sh"))


@pytest.mark.parametrize("name", LAUNCHERS)
def test_usage(name):
    """Protects the launchers' names and their usage: exit code 2 without arguments, 0 where it was asked for."""
    process = bash(SCRIPTS / name)
    assert process.returncode == 2
    assert process.stdout == ""
    assert process.stderr.startswith(f"usage: bash scripts/{name} ")
    asked = bash(SCRIPTS / name, "--help")
    assert (asked.returncode, asked.stdout, asked.stderr) == (0, process.stderr, "")


@pytest.mark.parametrize("device", DEVICES)
def test_launch_lines(here, device):
    """Protects what each launcher runs, from any working directory: script, device, data folder, overrides."""
    python = here / "bin" / "python"

    def line(name, *arguments):
        process = bash(SCRIPTS / name, *arguments, cwd=here, ACMIX_PYTHON=python, DRY_RUN=1, MASTER_PORT=12345)
        assert (process.returncode, process.stdout) == (0, ""), process.stderr
        (command,) = commands(process)
        return command

    common = f"--config c.yaml --device_target {DEVICES[device]}"
    train = f"run_standalone_train_{device}.sh"
    assert line(train, "c.yaml") == f"{python} {ROOT}/train.py {common}"
    assert line(train, "c.yaml", "my data") == rf"{python} {ROOT}/train.py {common} --data_dir my\ data"
    overridden = line(train, "c.yaml", "--resume", "auto", "--train.seed=3")
    assert overridden == f"{python} {ROOT}/train.py {common} --resume auto --train.seed=3"

    evaluated = line(f"run_eval_{device}.sh", "c.yaml", "best.ckpt", "d", "--data.batch_size", 8)
    expected = f"{python} {ROOT}/eval.py --checkpoint best.ckpt {common} --data_dir d --data.batch_size 8"
    assert evaluated == expected
    exported = line(f"run_eval_{device}.sh", "c.yaml", "m.onnx", "--key", "@k")
    assert exported == f"{python} {ROOT}/eval.py --model m.onnx {common} --key @k"

    distributed = line(f"run_distribute_train_{device}.sh", 8, "c.yaml", "d", "--resume", "auto")
    msrun, script = distributed.split(f" {ROOT}/")
    assert script == f"train.py {common} --data_dir d --resume auto"
    log_dir = msrun.split()[6]
    assert msrun.split() == [
        f"{here}/bin/msrun",
        *("--worker_num=8", "--local_worker_num=8", "--node_rank=0", "--master_addr=127.0.0.1", "--master_port=12345"),
        *(log_dir, "--join=True", "--tail_worker_log=0"),
    ]
    assert re.fullmatch(r"--log_dir=logs/c-\d{8}-\d{6}", log_dir)
    assert not (here / "logs").exists()


@pytest.mark.parametrize("device", DEVICES)
def test_launch_lines_of_many_machines(here, device):
    """Protects the job of several machines: their workers together, the one meeting place, a log folder for each."""
    script = SCRIPTS / f"run_distribute_train_{device}.sh"
    settings = {"cwd": here, "ACMIX_PYTHON": here / "bin" / "python", "DRY_RUN": 1}
    nodes = ["--nnodes", 4, "--node_rank=3", "--master_addr", "10.0.0.1"]
    (command,) = commands(bash(script, 8, "c.yaml", *nodes, "--train.seed", 3, **settings))
    msrun, train = command.split(f" {ROOT}/")
    assert train == f"train.py --config c.yaml --device_target {DEVICES[device]} --train.seed 3"
    assert msrun.split()[1:6] == [
        *("--worker_num=32", "--local_worker_num=8", "--node_rank=3", "--master_addr=10.0.0.1", "--master_port=8118")
    ]
    assert re.fullmatch(r"--log_dir=logs/c-\d{8}-\d{6}-node3", msrun.split()[6])
    more = ["--master_port=9000", "--rank_table_file", "c.yaml"]
    more += ["--bind_core", "True", "--bind_numa=True", "--cluster_time_out", 60]
    (command,) = commands(bash(script, 8, *nodes, *more, "c.yaml", "my data", **settings))
    assert " --master_port=9000 " in command
    rest = "--rank_table_file=c.yaml --bind_core=True --bind_numa=True --cluster_time_out=60"
    assert f" {rest} {ROOT}/train.py " in command
    assert command.endswith(r" --data_dir my\ data")


def test_launch_lines_of_export_and_infer(here):
    """Protects the two launchers that need no device."""
    python = here / "bin" / "python"
    environment = {"cwd": here, "ACMIX_PYTHON": python, "DRY_RUN": 1}
    exported = bash(SCRIPTS / "run_export.sh", "c.yaml", "best.ckpt", "onnx", "--batch_size", 2, **environment)
    expected = f"{python} {ROOT}/export.py --config c.yaml --checkpoint best.ckpt --format onnx --batch_size 2"
    assert commands(exported) == [expected]
    inferred = bash(SCRIPTS / "run_infer_onnx.sh", "m.onnx", "a.png", "--topk", 3, **environment)
    assert commands(inferred) == [f"{python} {ROOT}/infer.py --model m.onnx --image a.png --topk 3"]


def test_a_launcher_ends_as_its_command(here):
    """Protects the exit code of a single process, and standard output, on which eval.py's last line is JSON."""
    python = program(here / "bin" / "python", 'echo "$# words"; exit 7')
    process = bash(SCRIPTS / "run_eval_cpu.sh", "c.yaml", "best.ckpt", cwd=here, ACMIX_PYTHON=python)
    assert (process.returncode, process.stdout) == (7, "7 words\n")


@pytest.mark.parametrize("number", ["two", "0", "-1", "1.5", "08", ""])
def test_device_num(here, number):
    """A DEVICE_NUM that is no number of workers is refused, before Python is looked for."""
    process = bash(SCRIPTS / "run_distribute_train_ascend.sh", number, "c.yaml", cwd=here, ACMIX_PYTHON="nopython")
    refused(process, "DEVICE_NUM", number)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--nnodes 0", ["--nnodes 0"]),
        ("--nnodes two", ["--nnodes two"]),
        ("--nnodes", ["--nnodes takes a value"]),
        ("--nnodes 2 --master_addr a", ["--node_rank", "from 0 to 1"]),
        ("--nnodes 2 --master_addr a --node_rank 2", ["--node_rank '2'", "from 0 to 1"]),
        ("--nnodes 2 --master_addr a --node_rank -1", ["--node_rank '-1'"]),
        ("--nnodes 2 --master_addr a --node_rank 01", ["--node_rank '01'"]),
        ("--node_rank 1", ["--node_rank '1'", "from 0 to 0"]),
        ("--nnodes 2 --node_rank 0", ["--master_addr is missing"]),
        ("--master_port 80", ["--master_port 80"]),
        ("--master_port=65536", ["--master_port 65536"]),
        ("--master_port http", ["--master_port http"]),
        ("--rank_table_file x.json", ["--rank_table_file x.json"]),
        ("--cluster_time_out soon", ["--cluster_time_out soon"]),
    ],
)
def test_bad_job(here, options, words):
    """What msrun would refuse late, or would wait for in vain, is one line that names it."""
    script = SCRIPTS / "run_distribute_train_ascend.sh"
    refused(bash(script, 8, "c.yaml", *options.split(), cwd=here, ACMIX_PYTHON=here / "bin" / "python"), *words)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("run_standalone_train_gpu.sh", ["x.yaml"], ["CONFIG x.yaml"]),
        ("run_standalone_train_gpu.sh", ["bin"], ["CONFIG bin"]),
        ("run_standalone_train_cpu.sh", ["c.yaml", "d", "e"], ["'e'"]),
        ("run_distribute_train_cpu.sh", ["2", "x.yaml"], ["CONFIG x.yaml"]),
        ("run_distribute_train_cpu.sh", ["2", "c.yaml", "d", "e"], ["'e'"]),
        ("run_eval_ascend.sh", ["c.yaml", "x.ckpt"], ["CHECKPOINT x.ckpt"]),
        ("run_eval_ascend.sh", ["x.yaml", "best.ckpt"], ["CONFIG x.yaml"]),
        ("run_export.sh", ["x.yaml", "best.ckpt", "onnx"], ["CONFIG x.yaml"]),
        ("run_export.sh", ["c.yaml", "x.ckpt", "onnx"], ["CHECKPOINT x.ckpt"]),
        ("run_infer_onnx.sh", ["x.onnx", "a.png"], ["MODEL x.onnx"]),
        ("run_infer_onnx.sh", ["m.onnx", "x.png"], ["IMAGE x.png"]),
    ],
)
def test_bad_arguments(here, name, arguments, words):
    """Each missing file or stray word is one line that names it."""
    refused(bash(SCRIPTS / name, *arguments, cwd=here, ACMIX_PYTHON=here / "bin" / "python"), *words)


def test_missing_python(here):
    """A Python that is not there, and one without msrun beside it, are named."""
    refused(bash(SCRIPTS / "run_standalone_train_cpu.sh", "c.yaml", cwd=here, ACMIX_PYTHON="nopython"), "nopython")
    process = bash(SCRIPTS / "run_distribute_train_cpu.sh", 2, "c.yaml", cwd=here, ACMIX_PYTHON=here / "bin" / "python")
    refused(process, "msrun", str(here / "bin"))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("run_standalone_train_ascend.sh", ["c.yaml"]),
        ("run_distribute_train_ascend.sh", [2, "c.yaml"]),
        ("run_eval_ascend.sh", ["c.yaml", "best.ckpt"]),
    ],
)
def test_what_ascend_needs(here, name, arguments):
    """Without CANN's environment or Python packages a launcher starts nothing and names the mend; others do not ask."""
    settings = {"cwd": here, "ACMIX_PYTHON": here / "bin" / "python", "ASCEND_HOME_PATH": "", "ASCEND_TOOLKIT_HOME": ""}
    refused(bash(SCRIPTS / name, *arguments, **settings), "ASCEND_HOME_PATH", "source set_env.sh")
    program(here / "bin" / "python", "[[ $1 == -c ]] && echo hccl te; exit 0")
    program(here / "bin" / "msrun", "exit 0")
    there = {**settings, "ASCEND_HOME_PATH": "/cann"}
    refused(bash(SCRIPTS / name, *arguments, **there), "(hccl te)", "docs/training.md")
    assert bash(SCRIPTS / name, *arguments, **settings, DRY_RUN=1).returncode == 0
    assert bash(SCRIPTS / name.replace("ascend", "gpu"), *arguments, **settings).returncode == 0
    program(here / "bin" / "python", "exit 0")
    assert bash(SCRIPTS / name, *arguments, **there).returncode == 0


STEPS = ["train.py", "eval.py", "export.py", "infer.py"]


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ((), "acmix_resnet_digits"),
        (("segmentation",), "fpn_acmix_resnet_scenes"),
        (("detection",), "retinanet_acmix_resnet_scenes"),
    ],
)
def test_quickstart_steps(task, name):
    """Protects the quick starts' steps and their order, and that a dry run of them needs no environment."""
    process = bash(SCRIPTS / "run_quickstart.sh", *task, cwd="/", DRY_RUN=1)
    assert process.returncode == 0
    assert [command.split()[1] for command in commands(process)] == STEPS
    assert "--resume auto" in commands(process)[0] and all(name in command for command in commands(process))
    assert Path(ROOT, "config", f"{name}.yaml").is_file()
    assert bash(SCRIPTS / "run_quickstart.sh", "now").returncode == 2


QUICKSTART_PYTHON = """
[[ $1 == -c ]] && exec {python} "$@"
echo "$1" >>{calls}
[[ $1 == eval.py ]] && printf 'digits\\n%s\\n' '{{"top1": 98.765, "top5": 100.0, "loss": 0.1, "samples": 355}}'
[[ $1 != {failing} ]] || exit 7
"""


@pytest.mark.parametrize("failing", ["nothing", *STEPS])
def test_quickstart_stops_at_a_failing_step(tmp_path, failing):
    """A failing step ends the quick start with its exit code; else the summary has the figure of the evaluation."""
    calls = tmp_path / "calls"
    text = QUICKSTART_PYTHON.format(python=sys.executable, calls=calls, failing=failing)
    process = bash(SCRIPTS / "run_quickstart.sh", ACMIX_PYTHON=program(tmp_path / "python", text))
    done = STEPS if failing == "nothing" else STEPS[: STEPS.index(failing) + 1]
    assert calls.read_text().split() == done
    assert process.returncode == (0 if failing == "nothing" else 7)
    assert ("98.77 % of 355 digits" in process.stdout) == (failing == "nothing")


def test_checks_and_ci():
    """.ci/run is run_tests.sh: style of code, text and scripts, then pytest and coverage, with arguments passed on."""
    bin = f"{ROOT}/.venv/bin"
    expected = [
        f"{bin}/python -m ruff check .",
        f"{bin}/python -m ruff format --check .",
        f"{bin}/python -m pymarkdown --strict-config scan ",
        f"{bin}/clang-format --dry-run --Werror kernels/",
        f"{bin}/shellcheck scripts/",
        f"{bin}/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -x",
    ]
    for script in (SCRIPTS / "run_tests.sh", ROOT / ".ci" / "run"):
        printed = commands(bash(script, "-x", cwd="/", DRY_RUN=1))
        assert all(map(str.startswith, printed, expected)) and len(printed) == len(expected)
        assert printed[-1] == expected[-1]
