# SPDX-License-Identifier: Apache-2.0
"""The file that names damaged images to leave out: a line SPLIT/CLASS/IMAGE for each (`check_data` finds them)."""

import os
import tempfile
from pathlib import Path

from src.errors import UserError


def read_damaged_list(path, split):
    """Return the images CLASS/IMAGE that the file `path` names of the folder `split`; none where `path` is "".

    Raises:
        UserError: the file cannot be read.
    """
    return {name[len(split) + 1 :] for name in _read(path) if name.startswith(f"{split}/")} if path else set()


def write_damaged_list(path, split, images):
    """Name `images` (CLASS/IMAGE) of the folder `split` in the file `path`; what it says of other splits stays.

    The workers of a job may all write the same at once.

    Raises:
        UserError: the file cannot be written.
    """
    others = [name for name in (_read(path) if os.path.exists(path) else []) if not name.startswith(f"{split}/")]
    lines = sorted([*others, *(f"{split}/{image}" for image in images)])
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=Path(path).parent, prefix=".damaged-", delete=False) as aside:
            aside.write(b"".join(os.fsencode(line) + b"\n" for line in lines))
        os.chmod(aside.name, 0o644)
        os.replace(aside.name, path)
    except OSError as error:
        raise UserError(f"cannot write data.damaged_list {path} ({error.strerror}); give another file") from error


def _read(path):
    try:
        return os.fsdecode(Path(path).read_bytes()).splitlines()
    except OSError as error:
        raise UserError(
            f"cannot read data.damaged_list {path} ({error.strerror}); --check_data makes it, or leave it out"
        ) from error
