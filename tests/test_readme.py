# SPDX-License-Identifier: Apache-2.0
"""The README: both languages in step, and only commands that exist."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ENGLISH, CHINESE = (ROOT / name for name in ("README.md", "README_CN.md"))


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)


def commands(path):
    lines = "".join(blocks(path, "bash")).splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_both_languages_give_the_same_commands_and_headings():
    """A reader of either must be able to do the same."""
    assert commands(ENGLISH) == commands(CHINESE)
    assert blocks(ENGLISH, "python") == blocks(CHINESE, "python")
    levels = [
        [len(mark) for mark in re.findall(r"^(#+) ", re.sub(r"```.*?```", "", path.read_text(), flags=re.S), re.M)]
        for path in (ENGLISH, CHINESE)
    ]
    assert levels[0] == levels[1]


def test_links_lead_somewhere():
    """Files that the README points to exist."""
    for path in (ENGLISH, CHINESE):
        for target in re.findall(r"\]\((?!https?://|#)([^)]+)\)", path.read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), target


def test_table_of_contents_names_every_section():
    """Each heading has its line in the contents, and each line its heading."""
    for path in (ENGLISH, CHINESE):
        text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.S)
        headings = [title for _, title in re.findall(r"^(#+) (.+)$", text, re.M)][1:]
        anchors = re.findall(r"^ *- \[([^]]+)\]\(#([^)]+)\)", text, re.M)
        assert [title for title, _ in anchors] == headings
        assert all(anchor == re.sub(r"[^\w-]", "", title.lower().replace(" ", "-")) for title, anchor in anchors)


@pytest.mark.parametrize("command", [line for line in commands(ENGLISH) if line.startswith(("python", "bash"))])
def test_commands_name_what_is_there(command):
    """Scripts and configs exist; launchers accept the arguments as printed (paths that only the user has stand in)."""
    words = shlex.split(command)
    assert (ROOT / words[1]).is_file()
    for word in words:
        if word.startswith("config/"):
            assert (ROOT / word).is_file()
    if words[0] == "bash" and "run_tests" not in words[1] and "best.ckpt" not in command and ".onnx" not in command:
        done = subprocess.run(words, cwd=ROOT, env={"DRY_RUN": "1", "PATH": "/usr/bin:/bin"}, capture_output=True)
        assert done.returncode == 0, done.stderr


def test_the_example_runs():
    """The layer that the README builds can be built."""
    for block in blocks(ENGLISH, "python"):
        exec(block, {})
