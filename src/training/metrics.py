# SPDX-License-Identifier: Apache-2.0
"""`metrics.jsonl`: what a run measured, one JSON object a line.

`{"kind": "train", "epoch", "step", "loss", "lr", "images_per_s"}` every few steps: the mean loss since the line before
(rank 0's images, with label smoothing), the learning rate of the step, the throughput of all workers (null where
only the compiling step was seen). `{"kind": "eval", "epoch", "step", "top1", "top5", "loss", "samples"}` after each
epoch: percent, and the mean cross entropy without smoothing. Epochs and steps count from 1 over the whole training.
"""

import json
from pathlib import Path

from src.errors import UserError
from src.training.atomic import replacing


class MetricsLog:
    """Append lines to `path`, keeping of an earlier run only those up to step `keep_to`.

    Raises:
        UserError: the file cannot be written.
    """

    def __init__(self, path, keep_to=0):
        kept = [line for line in read_metrics(path) if line["step"] <= keep_to]
        with replacing(path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        self._path = Path(path)

    def write(self, kind, values):
        """Append `values` (a dict of JSON values) as a line of `kind`."""
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"kind": kind, **values}) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror}") from error


def read_metrics(path):
    """Return the lines of a metrics file as dicts: [] without a file; a line cut off by a kill is skipped."""
    path = Path(path)
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return lines
