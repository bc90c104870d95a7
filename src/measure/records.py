# SPDX-License-Identifier: Apache-2.0
"""Measurements as JSON lines, one a model and setting.

    {"time": ..., "model": "acmix_resnet50", "options": {}, "batch_size": 8, "image_size": [224, 224],
     "amp_level": "O0", "amp_dtype": "float16", "device_target": "CPU", "form": "network", "rounds": 5, "runs": 4,
     "parameters": ..., "multiply_adds": ...,
     "forward": {"ms_per_image": ..., "ms_per_image_q1": ..., "ms_per_image_q3": ..., "compile_s": ..., "peak_gb": ...},
     "train": {the same},
     "machine": {"cpu": ..., "cores": ..., "gpu": ..., "load_average": ..., "mindspore": ..., "numpy": ...,
                 "python": ..., "onnxruntime": ..., "onednn_max_cpu_isa": ...}}

`ms_per_image` is the median of rounds * runs runs, q1 and q3 are its quartiles; multiply-adds are of one image.
"""

import dataclasses
import json
import os
from pathlib import Path

from src.errors import UserError
from src.measure.setting import PHASES, Setting

# What two measurements must have in common to be compared.
KEY = tuple(field.name for field in dataclasses.fields(Setting))
FIGURES = ("ms_per_image", "ms_per_image_q1", "ms_per_image_q3", "compile_s", "peak_gb")


def append_record(path, record):
    """Add a line to the file, whole or not at all."""
    line = json.dumps(record).encode() + b"\n"
    try:
        # One write of a file opened for appending: two runs may share the file.
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def read_records(path):
    """Return the measurements in a file.

    Raises:
        UserError: no such file, or a line that is cut short or no measurement; its number is named.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {getattr(error, 'strerror', 'not UTF-8 text')}") from error
    records = []
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        try:
            record = json.loads(line) if line.endswith("\n") else None
        except ValueError:
            record = None
        if not _is_record(record):
            raise UserError(
                f"{path}, line {number}: no whole line of benchmark.py --json; delete it or name another file"
            )
        records.append(record)
    return records


def setting_of(record):
    """Return the `Setting` that a record was measured under."""
    return Setting(**{name: record[name] for name in KEY})


def _is_record(record):
    if not isinstance(record, dict) or not all(name in record for name in (*KEY, "parameters", "multiply_adds")):
        return False
    phases = [record[phase] for phase in PHASES if phase in record]
    return (
        isinstance(record["options"], dict)
        and isinstance(record["image_size"], list)
        and isinstance(record.get("machine"), dict)
        and bool(phases)
        and all(isinstance(p, dict) and all(_is_positive(p.get(name)) for name in FIGURES) for p in phases)
    )


def _is_positive(value):
    return isinstance(value, (int, float)) and value > 0
