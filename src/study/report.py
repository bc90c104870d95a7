# SPDX-License-Identifier: Apache-2.0
"""What a study tells: rows of figures, the conditions under them, and the JSON file that holds both."""

import json
import math
import platform
import statistics
from datetime import datetime, timezone
from importlib.metadata import version

from scipy.special import stdtrit

from src.measure.machine import machine, machine_text
from src.training.atomic import replacing

PACKAGES = ("mindspore", "numpy", "matplotlib")
# Of differences by chance alone, so many lie nearer to zero than what is needed to tell two variants apart.
CONFIDENCE = 0.95
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


def compare(row, before):
    """Return how the top-1 of a row differs from another's, seed by seed, as JSON values.

    Returns:
        dict: of, against, the names of the two; differences, in points, of each seed; mean; standard_error of the mean,
        their deviation over the root of how many they are; standard_errors, how many of them the mean lies from zero;
        needed, how many tell the two apart by Student's t, two-sided; told_apart. Of one seed, or of differences that
        are all equal, what depends on their deviation is None.
    """
    # Rounded, so that equal ones are equal.
    differences = [round(one - other, 6) for one, other in zip(row["top1"], before["top1"])]
    mean, spread = mean_and_spread(differences)
    content = {"of": row["name"], "against": before["name"], "differences": differences, "mean": mean}
    if not spread:
        return content | dict.fromkeys(("standard_error", "standard_errors", "needed", "told_apart"))
    error = spread / math.sqrt(len(differences))
    needed = float(stdtrit(len(differences) - 1, (1 + CONFIDENCE) / 2))
    return content | {
        "standard_error": error,
        "standard_errors": abs(mean) / error,
        "needed": needed,
        "told_apart": abs(mean) > needed * error,
    }


def comparison_table(pairs):
    """Return (head, rows) of text on `compare` of each pair of rows."""
    head = ("compared", "top-1 by seed, points", "mean ± standard error", "standard errors from 0", "needed", "apart")
    return head, [_comparison_texts(row["label"], before["label"], compare(row, before)) for row, before in pairs]


def _comparison_texts(label, other, found):
    by_seed = ", ".join(f"{difference:+.2f}" for difference in found["differences"])
    if found["standard_error"] is None:
        return f"{label} - {other}", by_seed, f"{found['mean']:+.2f}", "", "", ""
    return (
        f"{label} - {other}",
        by_seed,
        f"{found['mean']:+.2f} ± {found['standard_error']:.2f}",
        f"{found['standard_errors']:.1f}",
        f"{found['needed']:.1f}",
        "yes" if found["told_apart"] else "no",
    )


def comparison_note(seeds):
    """Return the line that belongs under a `comparison_table` of so many seeds."""
    if seeds < 2:
        return "one seed does not tell variants apart"
    return (
        f"differences of runs with the same seed; the mean of {seeds} that are chance alone lies farther from 0 than "
        f"is needed in {1 - CONFIDENCE:.0%} of all studies (Student's t, two-sided, each comparison by itself)"
    )


def best_text(rows):
    """Say which row has the highest top-1."""
    best = max(rows, key=lambda row: row["top1_mean"])
    return f"The highest top-1 of {len(rows)}: {best['label']}, {accuracy_text(best)} %"


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
    data, length = config.data, config.train
    images = f", at most {data.train_limit} training images a class" if data.train_limit else ""
    end = f"step {length.steps}" if length.steps else f"epoch {length.epochs}"
    of_seeds = f"mean ± standard deviation of seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else "of one seed"
    return (
        f"{data.name} in {data.data_dir}{images}; top-1 after {end}, {of_seeds}; "
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
