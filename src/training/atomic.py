# SPDX-License-Identifier: Apache-2.0
"""Files that appear complete or not at all, whenever the process is killed."""

import os
from contextlib import contextmanager
from pathlib import Path

from src.errors import UserError

# In the names of files that are not whole yet.
MARK = ".tmp-"


@contextmanager
def replacing(path):
    """Yield a temporary path beside `path`; when the block ends well, what was written there becomes `path`.

    The temporary name keeps the suffix of `path`. A block that fails leaves `path` as it was.

    Raises:
        UserError: the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}{MARK}{os.getpid()}{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; mend that, or choose another --output_dir"
        ) from error
    finally:
        # MindSpore writes to a temporary file of its own beside it.
        for leftover in path.parent.glob(f"{path.name}{MARK}{os.getpid()}*"):
            leftover.unlink()


def remove_leftovers(folder):
    """Delete the temporary files that killed runs left in `folder`."""
    for leftover in Path(folder).glob(f"*{MARK}*"):
        leftover.unlink(missing_ok=True)
