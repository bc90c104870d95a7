# SPDX-License-Identifier: Apache-2.0
"""Running the shell scripts in tests."""

import os
import socket
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "scripts"


def bash(script, *arguments, cwd=ROOT, **environment):
    """Run a script with nothing of the caller's settings but these; return the finished process."""
    command = ["bash", str(script), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=settings(**environment), capture_output=True, text=True)


def settings(**environment):
    kept = {k: v for k, v in os.environ.items() if k not in ("ACMIX_PYTHON", "MASTER_PORT", "DRY_RUN", "PYTHON")}
    return {**kept, **{k: str(v) for k, v in environment.items()}}


def commands(process):
    """The commands a script printed before it ran them."""
    return [line[2:] for line in process.stderr.splitlines() if line.startswith("+ ")]


def refused(process, *words):
    """Exit code 2, one line, no output; the line has these words."""
    assert process.returncode == 2, process.stderr
    assert process.stdout == ""
    (line,) = process.stderr.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line


def program(path, text):
    """Write an executable file; bash text unless it says otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if text.startswith("#!") else f"#!/usr/bin/env bash\n{text}")
    path.chmod(0o755)
    return path


def working_directory(folder):
    """Put into `folder` the files that launchers ask for, and as bin/python a Python that does nothing."""
    for name in ("c.yaml", "best.ckpt", "m.onnx", "a.png"):
        (folder / name).touch()
    program(folder / "bin" / "python", "exit 0")
    return folder


def free_port():
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
