# SPDX-License-Identifier: Apache-2.0
"""`survive_crashes`: a crash becomes a line, everything else is as without it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def start(code):
    """Run Python code after `survive_crashes("it broke")`."""
    code = f"import os, sys, signal, time; from src.crash import survive_crashes; survive_crashes('it broke')\n{code}"
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )


@pytest.mark.parametrize(
    ("code", "status", "out", "err"),
    [
        ("print('done')", 0, "done\n", ""),
        ("print('seen', file=sys.stderr); sys.exit(3)", 3, "", "seen\n"),
        ("print('begun', flush=True); os.kill(os.getpid(), signal.SIGSEGV)", 2, "begun\n", "error: it broke\n"),
        ("os.abort()", 2, "", "error: it broke\n"),
        ("os.write(2, b'noise of a library')", 0, "", ""),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137, "", ""),
    ],
    ids=["end", "exit code", "crash", "abort", "noise", "killed"],
)
def test_ends(code, status, out, err):
    """Exit codes and what Python writes pass; a crash is one line and exit code 2; libraries write nothing."""
    process = start(code)
    assert (*process.communicate(timeout=20), process.returncode) == (out, err, status)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_signals_reach_the_work(number, status):
    """Whoever stops the program stops its work."""
    process = start(
        "signal.signal(signal.SIGINT, signal.SIG_DFL); print(os.getpid(), flush=True)\nwhile True: time.sleep(1)"
    )
    worker = int(process.stdout.readline())
    assert worker != process.pid
    process.send_signal(number)
    assert process.wait(timeout=20) == status
    for _ in range(100):
        try:
            # Not yet collected by its new parent, it is dead all the same.
            if Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except FileNotFoundError:
            return
        time.sleep(0.05)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the work went on")
