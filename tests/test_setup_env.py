# SPDX-License-Identifier: Apache-2.0
"""setup_env.sh: the environment is made once, whatever came between."""

import shutil

import pytest
from shell import SCRIPTS, bash, program, refused

PYTHON = """
[[ $1 == -c ]] && exit {unsupported}
[[ "$*" == "-m venv --clear .venv" ]] || exit 9
echo venv >>calls
rm -rf .venv
mkdir -p .venv/bin
printf '#!/usr/bin/env bash\\necho pip from "%s/.venv/lib"\\n' "$PWD" >.venv/bin/pip
printf '#!/usr/bin/env bash\\necho install >>calls\\n[[ ! -e no_network ]]\\n' >.venv/bin/python
chmod +x .venv/bin/*
"""


@pytest.fixture
def clone(tmp_path):
    """A clone with the set-up script alone, and a Python that records what it is asked for."""
    clone = tmp_path / "clone"
    (clone / "scripts").mkdir(parents=True)
    shutil.copy(SCRIPTS / "setup_env.sh", clone / "scripts")
    (clone / "requirements.txt").write_text("numpy\n")
    program(tmp_path / "python3.11", PYTHON.format(unsupported=0))
    return clone


def set_up(clone, **environment):
    """Run setup_env.sh; return its exit code and what Python was asked for."""
    (clone / "calls").write_text("")
    environment = {"PYTHON": clone.parent / "python3.11", **environment}
    process = bash(clone / "scripts" / "setup_env.sh", cwd="/", **environment)
    return process.returncode, (clone / "calls").read_text().split()


def test_set_up_once(clone):
    """The environment is made once; only a changed requirements.txt installs again."""
    assert set_up(clone) == (0, ["venv", "install"])
    assert set_up(clone) == (0, [])
    (clone / "requirements.txt").write_text("numpy\nscipy\n")
    assert set_up(clone) == (0, ["install"])
    assert set_up(clone) == (0, [])


def test_set_up_goes_on(clone):
    """What failed or was interrupted is taken up again; a moved clone gets a new .venv."""
    (clone / "no_network").touch()
    assert set_up(clone) == (1, ["venv", "install"])
    (clone / "no_network").unlink()
    assert set_up(clone) == (0, ["install"])
    (clone / "requirements.txt").write_text("scipy\n")
    (clone / "no_network").touch()
    assert set_up(clone) == (1, ["install"])
    (clone / "no_network").unlink()
    (clone / "requirements.txt").write_text("numpy\n")
    assert set_up(clone) == (0, ["install"])
    moved = clone.with_name("moved")
    shutil.copytree(clone, moved)
    assert set_up(moved) == (0, ["venv", "install"])


def test_unsupported_python(clone):
    """A Python for which there is no MindSpore, or none at all, is one line that says what to do."""
    old = program(clone.parent / "python3.6", PYTHON.format(unsupported=1))
    for python in (old, "nopython"):
        refused(bash(clone / "scripts" / "setup_env.sh", PYTHON=python), "3.10 to 3.12", str(python), "PYTHON=")
    assert not (clone / ".venv").exists()


def test_a_linked_environment_is_left_alone(clone):
    """Protects an environment that another clone shares by a link: making it anew would empty it."""
    other = clone.parent / "other"
    (other / "bin").mkdir(parents=True)
    (clone / ".venv").symlink_to(other)
    refused(bash(clone / "scripts" / "setup_env.sh", PYTHON=clone.parent / "python3.11"), "link", "ACMIX_PYTHON")
    assert (other / "bin").exists()
