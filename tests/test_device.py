# SPDX-License-Identifier: Apache-2.0
"""Which device a process takes and which job it joins, by the environment of its launcher; no device is needed."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
from shell import ROOT

from src import device
from src.device import World, setup_device
from src.errors import UserError

MSRUN = {"MS_ROLE": "MS_WORKER", "DEVICE_ID": "3", "RANK_ID": "11"}
SIMULATION = {"MS_SIMULATION_LEVEL": "1", "RANK_SIZE": "16", "RANK_ID": "11"}
MPIRUN = {"OMPI_COMM_WORLD_SIZE": "16", "OMPI_COMM_WORLD_LOCAL_RANK": "5"}


@pytest.fixture
def launched(monkeypatch):
    """Return a function that sets up a device under this environment; gives what was asked of MindSpore."""

    def setup(target, **environment):
        asked = SimpleNamespace(device=None, joined=False, parallel={})
        for name in ("MS_ROLE", "DEVICE_ID", "RANK_TABLE_FILE", *MPIRUN, *SIMULATION):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(device.ms, "set_device", lambda *words: setattr(asked, "device", words))
        monkeypatch.setattr(device.ms, "set_auto_parallel_context", lambda **words: asked.parallel.update(words))
        monkeypatch.setattr(device, "init", lambda: setattr(asked, "joined", True))
        monkeypatch.setattr(device, "get_rank", lambda: 11)
        monkeypatch.setattr(device, "get_group_size", lambda: 16)
        asked.world = setup_device(SimpleNamespace(target=target, device_id=2))
        return asked

    return setup


@pytest.mark.parametrize("target", ["GPU", "Ascend"])
@pytest.mark.parametrize(
    ("environment", "number"),
    [
        pytest.param(MSRUN, 3, id="msrun"),
        pytest.param({**MSRUN, "RANK_TABLE_FILE": "t.json"}, 3, id="msrun with a rank table"),
        pytest.param(MPIRUN, 5, id="mpirun"),
    ],
)
def test_worker(launched, target, environment, number):
    """A worker of any machine takes the device of its number on that machine, not of its rank, and means gradients.

    The gradients go together: a collective for each parameter is slow.
    """
    asked = launched(target, **environment)
    assert asked.device == (target, number)
    assert asked.joined
    assert asked.world == World(11, 16)
    assert asked.parallel["gradients_mean"] and asked.parallel["device_num"] == 16
    assert asked.parallel["comm_fusion"]["allreduce"]["mode"] == "auto"


@pytest.mark.parametrize("number", [0, 6])
def test_simulated_rank(launched, number):
    """In MindSpore's simulation a process is the rank it is told to be, for which msrun leaves MS_ROLE unset."""
    asked = launched("Ascend", **SIMULATION, **({"DEVICE_ID": str(number)} if number else {}))
    assert asked.joined and asked.device == ("Ascend", number)
    assert asked.world == World(11, 16)


@pytest.mark.parametrize("environment", [{"MS_SIMULATION_LEVEL": "1"}, {"RANK_SIZE": "16", "RANK_ID": "11"}])
def test_half_a_simulation(launched, environment):
    """A simulation of one device joins nothing, nor does a process with what an earlier job left."""
    asked = launched("Ascend", **environment)
    assert not asked.joined and asked.world == World(0, 1)


@pytest.mark.parametrize("target", ["GPU", "Ascend"])
def test_alone(launched, target):
    """A process on its own joins nothing and takes device.device_id, whatever an earlier job left in DEVICE_ID."""
    asked = launched(target, DEVICE_ID="7")
    assert asked.device == (target, 2)
    assert not asked.joined
    assert asked.world == World(0, 1)


@pytest.mark.parametrize(
    ("target", "environment", "words"),
    [
        ("Ascend", {"RANK_TABLE_FILE": "t.json", "RANK_ID": "0", "DEVICE_ID": "0"}, "--rank_table_file"),
        ("Ascend", {**MPIRUN, "RANK_TABLE_FILE": "t.json"}, "unset RANK_TABLE_FILE"),
        ("CPU", MPIRUN, "run_distribute_train_cpu.sh"),
    ],
)
def test_refused_launches(launched, target, environment, words):
    """What MindSpore would refuse, or join as something else, is one line that names the way to launch."""
    with pytest.raises(UserError, match=words):
        launched(target, **environment)


@pytest.mark.parametrize(
    ("role", "given", "expected"),
    [("MS_SCHED", None, "15"), ("MS_SCHED", "40", "40"), ("MS_WORKER", None, "None")],
)
def test_patience_of_the_scheduler(role, given, expected):
    """The scheduler alone is told to miss workers early: to workers the same variable says how long to wait to meet."""
    code = (
        "import sys, types;"
        "sys.modules.update({name: types.ModuleType(name) for name in ('mindspore', 'mindspore.communication')});"
        "c = sys.modules['mindspore.communication']; c.init = c.get_rank = c.get_group_size = None;"
        "import os, src.device; print(os.environ.get('MS_NODE_TIMEOUT'), os.environ['MS_CPU_COMM_OP_TIMEOUT'])"
    )
    environment = {"MS_ROLE": role, **({"MS_NODE_TIMEOUT": given} if given else {})}
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == [expected, "3600"], done.stderr


def test_mindspore_loads_with_our_settings():
    """Whatever of `src` is imported first, MindSpore finds what it reads when it loads; a user's own value wins."""
    names = ["ONEDNN_MAX_CPU_ISA", "MS_SUBMODULE_LOG_v"]
    code = f"import os, sys, src.data.check_data; print([os.environ[n] for n in {names}], 'mindspore' in sys.modules)"
    clean = {name: value for name, value in os.environ.items() if name not in names}
    for own, expected in ({}, ["AVX2", "{MD:4}"]), ({names[0]: "SSE41"}, ["SSE41", "{MD:4}"]):
        done = subprocess.run(
            [sys.executable, "-c", code], env={**clean, **own}, cwd=ROOT, capture_output=True, text=True
        )
        assert done.stdout == f"{expected} True\n", done.stderr


def test_onnx_may_be_imported_first():
    """Before 2.10 MindSpore cannot be imported after it without our setting; there this fails when that is gone."""
    clean = {name: value for name, value in os.environ.items() if name != "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"}
    code = "import src, onnx, mindspore"
    done = subprocess.run([sys.executable, "-c", code], env=clean, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
