# SPDX-License-Identifier: Apache-2.0
"""What a study tells: rows of figures, the conditions under them, and the JSON file that holds both."""

import json
import platform
import statistics
from datetime import datetime, timezone
from importlib.metadata import version

from src.measure.machine import machine, machine_text
from src.training.atomic import replacing

PACKAGES = ("mindspore", "numpy", "matplotlib")
# What `cost_texts` gives, as heads of columns.
COSTS = ("multiply-adds, M", "top-1, %", "forward, ms/img", "training step, ms/img")


def row_of(variant, size, results, record):
    """Return what is known of a `Variant`, as JSON values.

    Args:
        variant (Variant): which.
        size (dict): its `parameters` and `multiply_adds`.
        results (list): of each seed, see `src.study.runs.result_of`.
        record (dict, None): its times (`src.measure.records`), where the study takes any.
    """
    top1 = [result["top1"] for result in results]
    mean, spread = mean_and_spread(top1)
    row = {
        "name": variant.name,
        "label": variant.label,
        "model": variant.model.name,
        "options": variant.model.options,
        **size,
        "top1": top1,
        "top1_mean": mean,
        "top1_spread": spread,
        "results": results,
    }
    return row | {name: record[name] for name in ("forward", "train", "machine") if record}


def mean_and_spread(values):
    """Return mean and standard deviation; None for the latter of one value."""
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def gain_text(pairs):
    """Return "+0.21 ± 0.10 points": the top-1 of rows over that of others, seed by seed, the mean over the pairs."""
    by_seed = zip(*([one - other for one, other in zip(row["top1"], before["top1"])] for row, before in pairs))
    mean, spread = mean_and_spread([statistics.mean(gains) for gains in by_seed])
    return f"{mean:+.2f} points" if spread is None else f"{mean:+.2f} ± {spread:.2f} points"


def accuracy_text(row):
    """Return "97.93 ± 0.21"."""
    mean = f"{row['top1_mean']:.2f}"
    return mean if row["top1_spread"] is None else f"{mean} ± {row['top1_spread']:.2f}"


def time_text(row, phase):
    """Return "1.51 (1.49-1.60)", median and quartiles, of a phase."""
    middle, low, high = (row[phase][f"ms_per_image{quartile}"] for quartile in ("", "_q1", "_q3"))
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def cost_texts(row):
    """Return the texts of a row that was timed, under the heads `COSTS`."""
    return (
        f"{row['multiply_adds'] / 1e6:.1f}",
        accuracy_text(row),
        *(time_text(row, phase) for phase in ("forward", "train")),
    )


def conditions(config, seeds):
    """Return the line that belongs under a table of trained variants."""
    of_seeds = f"mean ± standard deviation of seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else "of one seed"
    return (
        f"{config.data.name} in {config.data.data_dir}; top-1 after epoch {config.train.epochs}, {of_seeds}; "
        f"{config.device.target}, {machine_text(machine(), config.device.target)}; {versions_text()}"
    )


def versions():
    """Return the versions that figures depend on."""
    return {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}


def versions_text():
    return ", ".join(f"{name} {number}" for name, number in versions().items())


def write_json(path, content):
    """Write `content`, with time, machine and versions before it; the file appears whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    content = {"time": now, "machine": machine(), "versions": versions(), **content}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
