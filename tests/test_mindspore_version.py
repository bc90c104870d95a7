# SPDX-License-Identifier: Apache-2.0
"""Which versions of MindSpore are taken, and what is said of another one."""

import subprocess
import sys
from pathlib import Path

import pytest
from shell import ROOT, refused, settings

from src.mindspore_version import mindspore_mistake

DIGITS = ROOT / "config" / "acmix_resnet_digits.yaml"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Return a function that puts a MindSpore of this version before all others; importing it ends in an error."""

    def install(version):
        package = tmp_path / "mindspore"
        package.mkdir()
        (package / "__init__.py").write_text("raise RuntimeError('imported')")
        (package / "version.py").write_text(f"__version__ = '{version}'\n")
        monkeypatch.delitem(sys.modules, "mindspore", raising=False)
        monkeypatch.syspath_prepend(tmp_path)
        return tmp_path

    return install


def run(script, *words, folder):
    """Run an entry script with the MindSpore of `folder`."""
    command = [sys.executable, ROOT / script, *words]
    return subprocess.run(command, env=settings(PYTHONPATH=folder), capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("version", ["2.7.2", "2.7.2.post1", "2.8.0", "2.10.0rc1", "2.10.0+cuda118", "2.10.1"])
def test_taken(installed, version):
    """From 2.7.2 to the last mend of 2.10."""
    installed(version)
    assert mindspore_mistake() == ""


@pytest.mark.parametrize("version", ["1.10.1", "2.7.1.post1", "2.7.2rc1", "2.11.0rc1", "2.11.0", "2.100.0", "3.0.0"])
def test_refused(installed, version):
    """2.100 is newer than 2.10, and what comes before the release of 2.11 is no 2.10."""
    installed(version)
    assert f"has MindSpore {version}, and this takes 2.7.2 to 2.10;" in mindspore_mistake()


@pytest.mark.parametrize("script", ["train.py", "eval.py", "export.py", "infer.py", "scripts/convert_checkpoint.py"])
def test_a_script_refuses_in_a_line(installed, script):
    """Before MindSpore is imported, which may fail anywhere; the line names Python, version and mend."""
    refused(run(script, "--help", folder=installed("2.6.0")), sys.executable, "2.6.0", "2.7.2", "setup_env.sh")


def test_no_mindspore(monkeypatch):
    """A Python without any is told so, not shown where the first import failed."""
    monkeypatch.setattr("src.mindspore_version.find_spec", lambda name: None)
    assert "no MindSpore" in mindspore_mistake()


def test_a_taken_one_is_imported(installed):
    """The check looks at the version alone; what fails after it is MindSpore's own."""
    done = run("train.py", "--config", DIGITS, folder=installed("2.9.0"))
    assert done.returncode == 1 and "RuntimeError: imported" in done.stderr


def test_the_promise_is_told():
    """Both READMEs name the versions that the check takes, and .venv gets one of them."""
    told = {"README.md": "2.7.2 to 2.10,", "README_CN.md": "2.7.2至2.10，", "requirements.txt": "\nmindspore==2.10."}
    for name, words in told.items():
        assert words in Path(ROOT, name).read_text(encoding="utf-8"), name
