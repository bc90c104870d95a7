# SPDX-License-Identifier: Apache-2.0
"""Which versions of MindSpore are taken, asked before it is imported: another one may fail at any line of that."""

import re
import sys
from importlib.util import find_spec
from pathlib import Path

from packaging.specifiers import SpecifierSet

# Checked with the first, the last and 2.9.0 (docs/training.md, "The environment on Ascend").
TAKEN = SpecifierSet(">=2.7.2,<2.11", prereleases=True)


def mindspore_mistake():
    """Return the line that refuses the MindSpore of this Python, or `""` where its version is one of `TAKEN`."""
    version = _installed_version()
    if version and version in TAKEN:
        return ""
    found = f"MindSpore {version}" if version else "no MindSpore"
    return (
        f"{sys.executable} has {found}, and this takes 2.7.2 to 2.10; install one of these there, or take the newest: "
        "bash scripts/setup_env.sh makes .venv with it"
    )


def _installed_version():
    spec = find_spec("mindspore")
    if not spec or not spec.origin:
        return None
    # Packages have had several names; this file of the package itself is where MindSpore has its version from.
    return re.search(r"[\"'](.+)[\"']", Path(spec.origin).with_name("version.py").read_text()).group(1)
