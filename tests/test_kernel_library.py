# SPDX-License-Identifier: Apache-2.0
"""How the fused kernels come to be: built once, whole or not at all; and what is said where they cannot be."""

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import mindspore as ms
import pytest
from shell import ROOT, program
from tiny_training import changed

from src.config import DeviceConfig
from src.device import World
from src.errors import UserError
from src.ops import kernels
from src.ops.kernels import NoKernels, fused_form, library
from src.tasks.classification import Classification
from src.training import evaluate, trainer
from src.training.kernels import kernels_of
from src.training.resume import recipe_of

COMPILER = os.environ.get("CXX") or "c++"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and a compiler that takes no time: it does not optimise."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(kernels, "CACHE", folder)
    monkeypatch.setattr(kernels, "FLAGS", ["-std=c++17", "-O0", "-fPIC", "-fvisibility=hidden", "-Wno-psabi"])
    return folder


def compiler(monkeypatch, tmp_path, body):
    """Put a compiler in place that does this; `$real` is the real one."""
    path = tmp_path / "bin" / "cxx"
    program(path, f"#!/usr/bin/env bash\nreal={shutil.which(COMPILER)}\n{body}\n")
    monkeypatch.setenv("CXX", str(path))
    return path


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_built_once(cache, tmp_path, monkeypatch):
    """The second time nothing is compiled; another source or another compiler has a library of its own."""
    compiler(monkeypatch, tmp_path, f'[[ $1 == --version ]] || echo once >> {tmp_path}/calls; exec $real "$@"')
    with fused_form():
        first = library()
    calls = (tmp_path / "calls").read_text()
    with fused_form():
        assert library() == first
    assert (tmp_path / "calls").read_text() == calls and library() is None
    assert files(cache) == sorted([Path(first).name, "lock"])

    monkeypatch.setattr(kernels, "SOURCES", shutil.copytree(kernels.SOURCES, tmp_path / "kernels"))
    with (tmp_path / "kernels" / "shapes.h").open("a") as source:
        source.write("// changed\n")
    with fused_form():
        assert library() != first


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("[[ $1 == --version ]] || { echo 'kernels.cc: error: no such thing' >&2; exit 3; }", "error: no such thing"),
        ("[[ $1 == --version ]] || kill -9 $$", "code -9"),
        ('[[ $1 == --version ]] || for word; do out=$word; done; echo text > "$out"', "cannot be loaded"),
    ],
)
def test_a_compiler_that_fails(body, named, cache, tmp_path, monkeypatch):
    """It is named with its first error, and leaves nothing that a later build would take for whole."""
    compiler(monkeypatch, tmp_path, body)
    with pytest.raises(NoKernels, match=named), fused_form():
        pass
    assert files(cache) == ["lock"]


def test_what_a_killed_build_left_is_swept_out(cache):
    """It would lie in the clone for ever; nobody builds beside one who builds."""
    (cache / "building-by-one-who-was-killed").mkdir(parents=True)
    with fused_form():
        assert files(cache) == sorted([Path(library()).name, "lock"])


def test_a_user_allows_operators_of_another_folder_alone(cache, tmp_path, monkeypatch, capsys):
    """MindSpore would refuse the library while a graph is made, in words of its own."""
    monkeypatch.setenv("MS_CUSTOM_AOT_WHITE_LIST", str(tmp_path / "operators"))
    with kernels_of(DeviceConfig()):
        assert library() is None
    assert "MS_CUSTOM_AOT_WHITE_LIST" in capsys.readouterr().err
    for allowed in (cache.parent, cache):
        monkeypatch.setenv("MS_CUSTOM_AOT_WHITE_LIST", str(allowed))
        with fused_form():
            assert library()


def test_no_compiler(cache, monkeypatch, capsys):
    """ "auto" says in one line why the portable form is taken, "fused" is refused, "portable" asks for nothing."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    with kernels_of(DeviceConfig()):
        assert library() is None
    line = capsys.readouterr().err
    assert "no-such-compiler" in line and "portable" in line and line.count("\n") == 1
    with (
        pytest.raises(UserError, match=r"no-such-compiler.*device\.kernels"),
        kernels_of(DeviceConfig(kernels="fused")),
    ):
        pass
    with kernels_of(DeviceConfig(kernels="portable")):
        assert library() is None
    assert not capsys.readouterr().err


def test_other_devices_take_the_portable_form_quietly(cache, monkeypatch, capsys):
    """Protects users of Ascend and GPU: kernels for the CPU are nothing they should hear of."""
    monkeypatch.setattr(ms, "get_context", {"device_target": "Ascend"}.__getitem__)
    with kernels_of(DeviceConfig(target="Ascend")):
        assert library() is None
    assert not capsys.readouterr().err
    with pytest.raises(UserError, match="Ascend"), kernels_of(DeviceConfig(target="Ascend", kernels="fused")):
        pass


@pytest.mark.parametrize("place", ["a file", "a folder that cannot be written", "a full disk"])
def test_a_cache_that_cannot_be_kept(place, cache, tmp_path, monkeypatch):
    """Each is named, and none ends a training."""
    if place == "a file":
        cache.write_text("")
    elif place == "a full disk":
        compiler(monkeypatch, tmp_path, "[[ $1 == --version ]] || { echo 'fatal error: No space left' >&2; exit 1; }")
    else:
        monkeypatch.setattr(kernels, "CACHE", Path("/proc/no"))  # root may write wherever permissions forbid it
    with pytest.raises(NoKernels, match=r"cannot be kept|No space left"), fused_form():
        pass


def test_several_processes_build_one_library(cache, tmp_path, monkeypatch):
    """The workers of a job begin together: one compiles, all load what it made."""
    script = tmp_path / "worker.py"
    calls = f'[[ $1 == --version ]] || echo once >> {tmp_path}/calls; exec $real "$@"'
    counting = compiler(monkeypatch, tmp_path, calls)
    script.write_text(
        "from pathlib import Path\n"
        "from src.ops import kernels\n"
        f"kernels.CACHE = Path('{cache}')\n"
        "kernels.FLAGS = ['-std=c++17', '-O0', '-fPIC', '-fvisibility=hidden', '-Wno-psabi']\n"
        "with kernels.fused_form(): print(kernels.library())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    workers = [
        subprocess.Popen([sys.executable, script], env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    printed = {worker.communicate(timeout=120)[0] for worker in workers}
    assert len(printed) == 1 and all(worker.returncode == 0 for worker in workers)
    objects = len(kernels._commands([str(counting)]))
    assert len((tmp_path / "calls").read_text().split()) == objects + 1


class Built(Exception):
    pass


@pytest.mark.parametrize(("form", "is_fused"), [("auto", True), ("fused", True), ("portable", False)])
def test_training_and_evaluation_take_what_is_asked(form, is_fused, config):
    """The setting reaches the network; it is none that a resumed run would have to keep."""

    def build(_):
        raise Built(library())

    config = changed(config, device={"kernels": form})
    for run in (trainer.train, partial(evaluate.evaluate_checkpoint, checkpoint="best.ckpt")):
        with pytest.raises(Built) as built:
            run(Classification(config, build), world=World())
        assert (built.value.args[0] is not None) == is_fused
    assert "device.kernels" not in recipe_of(config)
