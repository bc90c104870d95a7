# SPDX-License-Identifier: Apache-2.0
"""Damage to files, the same every time; a pickle that does some; and running `infer.py` on what came of it."""

import subprocess
import sys
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from shell import ROOT


def bounded(examples):
    """The same examples every time, and as many as seconds allow."""
    return settings(max_examples=examples, derandomize=True, database=None)


def damaged(content):
    """Strategy for `content` truncated, with bytes changed, with a part put in the place of another, or replaced."""
    place, byte = st.integers(0, len(content) - 1), st.integers(0, 255)

    def change(changes):
        copy = bytearray(content)
        for where, value in changes:
            copy[where] = value
        return bytes(copy)

    return st.one_of(
        place.map(lambda end: content[:end]),
        st.lists(st.tuples(place, byte), min_size=1, max_size=6).map(change),
        st.tuples(place, place, place).map(lambda cut: content[: cut[0]] + content[cut[1] :][: cut[2]]),
        st.binary(max_size=200),
    )


class Evil:
    """Unpickled, it leaves a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def infer(*words, cwd):
    """Run `infer.py`; return its exit code, standard output, and the lines of standard error."""
    command = [sys.executable, ROOT / "infer.py", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=cwd, timeout=120)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr.splitlines()
