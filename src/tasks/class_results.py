# SPDX-License-Identifier: Apache-2.0
"""What the classes of each image are written as: text, JSON lines or CSV, each image at once."""

import contextlib
import csv
import json
import sys
from pathlib import Path

from src.errors import UserError


@contextlib.contextmanager
def open_results(output, as_json, topk, best_of=lambda answer: answer):
    """Yield `write(path, answer)`, which takes an image and what was found in it.

    A file has every image that was written, whenever the process is stopped.

    Args:
        output: a .jsonl or .csv file; None: standard output.
        as_json (bool): JSON lines on standard output.
        topk (int): how many classes each image has.
        best_of: `best_of(answer)` returns them, as `[(label, probability), ...]`.

    Raises:
        UserError: the file is of no known kind, or cannot be written.
    """
    if output is None:
        # Names of files can be other than text.
        sys.stdout.reconfigure(errors="backslashreplace")
        form = json_line if as_json else _text
        yield lambda path, answer: print(form(path, best_of(answer)), flush=True)
        return
    if as_json:
        raise UserError("--json is of standard output, and --output takes its form from the name: give one of them")
    suffix = Path(output).suffix
    if suffix not in (".jsonl", ".csv"):
        raise UserError(f"--output {output} is of no known kind; it takes a .jsonl or .csv file")
    try:
        # Line by line: what is written is on its way to the disk.
        with open(output, "w", 1, encoding="utf-8", errors="backslashreplace", newline="") as file:
            if suffix == ".csv":
                row = csv.writer(file).writerow
                row(["image", *(f"{what}_{k}" for k in range(1, topk + 1) for what in ("label", "probability"))])
                yield lambda path, answer: row([path, *(cell for pair in best_of(answer) for cell in pair)])
            else:
                yield lambda path, answer: file.write(json_line(path, best_of(answer)) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror}; mend that, or choose another --output") from error


def json_line(path, best):
    """Return an image and its classes as JSON."""
    topk = [{"label": label, "probability": probability} for label, probability in best]
    return json.dumps({"image": str(path), "topk": topk}, ensure_ascii=False)


def _text(path, best):
    return "\n".join([str(path), *(f"{100 * probability:9.2f} %  {label}" for label, probability in best)])
