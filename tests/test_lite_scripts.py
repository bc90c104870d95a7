# SPDX-License-Identifier: Apache-2.0
"""run_infer_cpp.sh and run_infer_310.sh: what they convert, build and run, and what they refuse."""

import os
import shutil
import subprocess

import pytest
from shell import ROOT, SCRIPTS, bash, commands, program, refused, working_directory

NAMES = {"CPU": "run_infer_cpp.sh", "Ascend": "run_infer_310.sh"}
BUILD = ROOT / "build" / "cpp_infer"
CONVERTER = "tools/converter/converter/converter_lite"


@pytest.fixture
def here(tmp_path):
    """A working directory with an exported file, a MindSpore Lite whose converter works, and a cmake that does."""
    folder = working_directory(tmp_path)
    (folder / "m.onnx.json").touch()
    program(folder / "lite" / CONVERTER, "exit 0")
    program(folder / "bin" / "cmake", "exit 0")
    return folder


def run(here, device, *arguments, **environment):
    settings = {"LITE_HOME": here / "lite", "PATH": f"{here / 'bin'}:{os.environ['PATH']}", **environment}
    return bash(SCRIPTS / NAMES[device], *arguments, cwd=here, **settings)


@pytest.mark.parametrize("name", NAMES.values())
def test_usage(name):
    """Exit code 2 and the usage without arguments."""
    done = bash(SCRIPTS / name)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"usage: bash scripts/{name} MODEL.onnx IMAGE")


@pytest.mark.parametrize(
    ("device", "optimize", "name"), [("CPU", "general", "m_lite"), ("Ascend", "ascend_oriented", "m_ascend")]
)
def test_launch_lines(here, device, optimize, name):
    """Protects the converter's words, the build, and the program's arguments; a dry run does none of it."""
    done = run(here, device, "m.onnx", "a.png", "--topk", 3, DRY_RUN=1)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    convert, configure, build, infer = commands(done)
    assert convert == (
        f"{here}/lite/{CONVERTER} --fmk=ONNX --saveType=MINDIR --optimize={optimize} --modelFile=m.onnx "
        f"--outputFile={name}"
    )
    assert configure == f"cmake -S {ROOT}/cpp_infer -B {BUILD} -DLITE_HOME={here}/lite"
    assert build == f"cmake --build {BUILD}"
    assert infer == (
        f"{BUILD}/acmix_infer --model {name}.mindir --card m.onnx.json --device_target {device} a.png --topk 3"
    )
    assert not (here / f"{name}.mindir").exists()


@pytest.mark.parametrize("device", NAMES)
def test_a_converted_file_is_used_until_the_model_is_newer(here, device):
    """Protects against a converted file of an older model, and a conversion at each start."""
    mindir = here / ("m_lite.mindir" if device == "CPU" else "m_ascend.mindir")
    mindir.touch()
    os.utime(here / "m.onnx", (1e9, 1e9))
    assert len(commands(run(here, device, "m.onnx", "a.png", DRY_RUN=1))) == 3
    os.utime(here / "m.onnx", (2e9, 2e9))
    assert len(commands(run(here, device, "m.onnx", "a.png", DRY_RUN=1))) == 4


def test_without_a_release_the_python_package_converts(here):
    """On a CPU the headers and libraries of .lite suffice; its Python converts, and the build takes it."""
    done = run(here, "CPU", "m.onnx", "a.png", DRY_RUN=1, LITE_HOME="", LITE_PYTHON="python3.7m")
    convert, configure, *_ = commands(done)
    assert convert == f"python3.7m {ROOT}/scripts/lite_infer.py --model m.onnx"
    assert configure.endswith(f"-DLITE_HOME={ROOT}/.lite/mindspore_lite")


@pytest.mark.parametrize("failing", ["lite/" + CONVERTER, "bin/cmake"])
def test_a_failing_step_ends_the_script(here, failing):
    """No program of an older build or model runs after a conversion or a build that failed."""
    program(here / failing, "echo no >&2; exit 9")
    done = run(here, "CPU", "m.onnx", "a.png")
    assert (done.returncode, done.stdout) == (9, "")


@pytest.mark.parametrize(
    ("device", "arguments", "environment", "words"),
    [
        ("CPU", ["x.onnx", "a.png"], {}, ["MODEL x.onnx"]),
        ("CPU", ["best.ckpt", "a.png"], {}, ["best.ckpt", ".onnx"]),
        ("CPU", ["m.onnx", "x.png"], {}, ["IMAGE x.png"]),
        ("CPU", ["m.onnx", "a.png"], {"LITE_HOME": "nowhere"}, ["LITE_HOME nowhere"]),
        ("Ascend", ["x.onnx", "a.png"], {}, ["MODEL x.onnx"]),
        ("Ascend", ["m.onnx", "a.png"], {"LITE_HOME": ""}, ["LITE_HOME is not set"]),
        ("Ascend", ["m.onnx", "a.png"], {"LITE_HOME": "bin"}, ["LITE_HOME bin", "converter_lite"]),
    ],
)
def test_what_is_refused(here, device, arguments, environment, words):
    """Each missing file or setting is one line that names it."""
    refused(run(here, device, *arguments, **environment), *words)


def test_missing_programs_are_named(here):
    """A package of MindSpore Lite without its Python cannot convert; without CMake nothing is built."""
    (here / "package").mkdir()
    done = run(here, "CPU", "m.onnx", "a.png", LITE_HOME=here / "package", LITE_PYTHON="nopython")
    refused(done, "nopython", "LITE_PYTHON")
    program(here / "bin" / "python3.7", "echo no such module >&2; exit 1")
    refused(run(here, "CPU", "m.onnx", "a.png", LITE_HOME=here / "package"), "python3.7", "NumPy", "LITE_PYTHON")
    for name in ("bash", "dirname", "basename"):
        (here / "few").mkdir(exist_ok=True)
        (here / "few" / name).symlink_to(shutil.which(name))
    refused(run(here, "CPU", "m.onnx", "a.png", PATH=here / "few"), "cmake")


def test_a_card_is_needed(here):
    """Labels and normalisation lie in the description beside the file."""
    (here / "m.onnx.json").unlink()
    refused(run(here, "CPU", "m.onnx", "a.png"), "m.onnx.json")


def test_setting_lite_up_again_does_nothing(tmp_path):
    """Protects each start of run_infer_cpp.sh from a download of 170 MB."""
    (tmp_path / "scripts").mkdir()
    for name in ("setup_lite.sh", "common.sh"):
        (tmp_path / "scripts" / name).write_text((SCRIPTS / name).read_text())
    (tmp_path / ".lite").mkdir()
    (tmp_path / ".lite" / "installed").write_text("2.0.0\n")
    command = ["bash", "scripts/setup_lite.sh"]
    settings = {"PATH": os.environ["PATH"], "ACMIX_PYTHON": "nopython"}
    done = subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / ".lite" / "installed").write_text("1.9.0\n")
    done = subprocess.run(command, cwd=tmp_path, env=settings, capture_output=True, text=True)
    assert done.returncode == 2
    assert "nopython" in done.stderr
