# SPDX-License-Identifier: Apache-2.0
"""`metrics.jsonl`: what a run measured, one JSON object a line.

Each has "kind", "epoch" and "step", which count from 1 over the whole training.

"train", every `train.log_interval` steps, of the steps since the line before:
    loss            mean over rank 0's images, with label smoothing; null if no step had a finite one
    lr              learning rate of the last update
    gradient_norm   mean norm of all gradients together, before clipping
    skipped         steps whose gradients were not finite, so that they changed nothing
    loss_scale      factor on the loss in float16, else null
    images_per_s    of all workers; null where only the compiling step was seen, as data_wait
    data_wait       share of the time spent waiting for images
    memory_gb       peak so far: of the process on CPU, of the device elsewhere
"eval", after each epoch of `train.eval_epochs`, what the task's `Judge` gives: of classification top1, top5 in percent,
    loss the mean cross entropy without smoothing, samples; of segmentation miou, macc, aacc in percent, samples;
    of detection ap, ap50, ... in percent (`src.tasks.coco_ap.NUMBERS`), of masks the same after "mask_", samples.
"ema", then too: the same of the averaged weights, where `optimizer.ema_decay` asks for them.
"paths", after each epoch: alpha and beta of each ACmix operator by its place in the network.
"""

import json
from pathlib import Path

from src.errors import UserError
from src.training.atomic import replacing


class MetricsLog:
    """Append lines to `path`, keeping of an earlier run its first `epochs` and its training in the next up to `step`.

    Raises:
        UserError: the file cannot be written.
    """

    def __init__(self, path, epochs=0, step=0):
        # No evaluation of the next one: where a stop came in the midst of one, both are done again.
        kept = [
            line
            for line in read_metrics(path)
            if line["epoch"] <= epochs
            or (line["epoch"] == epochs + 1 and line["step"] <= step and line["kind"] == "train")
        ]
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
