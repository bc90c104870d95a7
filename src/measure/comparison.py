# SPDX-License-Identifier: Apache-2.0
"""Two files of measurements against each other: ratio B / A of each figure of each model and setting."""

import json

from src.errors import UserError
from src.measure.records import KEY, read_records, setting_of
from src.measure.setting import PHASES, size_text

# (name in tables, name in records, digits)
FIGURES = (("ms/img", "ms_per_image", 2), ("GB", "peak_gb", 2), ("compile s", "compile_s", 1))
MACHINE = ("cpu", "cores", "gpu", "mindspore", "onnxruntime", "numpy", "python", "onednn_max_cpu_isa")
HEAD = ("model", "batch", "image", "figure", "A", "B", "B / A")


def compare(path_a, path_b):
    """Return `(rows, warnings)`: rows under `HEAD`, and lines on what makes the two differ or lacks its counterpart.

    Where a file holds a setting more than once, its last line counts.

    Raises:
        UserError: a file that cannot be read, or no setting in common.
    """
    a, b = (_by_setting(read_records(path)) for path in (path_a, path_b))
    common = [key for key in a if key in b]
    if not common:
        raise UserError(f"{path_a} and {path_b} have no model and setting in common")
    rows, warnings = [], []
    for key in common:
        rows += _rows(a[key], b[key])
        for name in MACHINE:
            one, other = (record["machine"].get(name, "") for record in (a[key], b[key]))
            if one != other:
                warnings.append(f"{name} differs: {one} in A, {other} in B")
    for name, path, mine, others in (("A", path_a, a, b), ("B", path_b, b, a)):
        warnings += [f"only in {name} ({path}): {_describe(mine[key])}" for key in mine if key not in others]
    return rows, list(dict.fromkeys(warnings))


def _by_setting(records):
    return {json.dumps([record[name] for name in KEY], sort_keys=True): record for record in records}


def _describe(record):
    setting = setting_of(record)
    return f"{setting.label}, batch {setting.batch_size}, {size_text(setting.image_size)}, {setting.precision}"


def _rows(a, b):
    setting = setting_of(a)
    for phase in PHASES:
        if phase in a and phase in b:
            for figure, name, digits in FIGURES:
                values = [record[phase][name] for record in (a, b)]
                texts = [f"{value:.{digits}f}" for value in values]
                ratio = f"{values[1] / values[0]:.2f}"
                yield (
                    setting.label,
                    setting.batch_size,
                    size_text(setting.image_size),
                    f"{phase} {figure}",
                    *texts,
                    ratio,
                )
