# SPDX-License-Identifier: Apache-2.0
"""Open exported files, each in a child process: `python tests/open_each.py FILE ...` prints how each one ended."""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from src.deploy.running.exported import ExportedModel
from src.errors import UserError


def end_of(path):
    """Return "ran", "refused" or "crashed"; "hung" after a while, "raised" where a caller would see a traceback."""
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        try:
            model = ExportedModel(path)
            model.results(np.zeros(model.card["input"]["shape"], np.float32))[0]
        except UserError:
            os._exit(1)
        except BaseException:
            os._exit(2)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {0: "ran", 1: "refused", 2: "raised", -signal.SIGALRM: "hung"}.get(code, "crashed")


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print(end_of(path), flush=True)
