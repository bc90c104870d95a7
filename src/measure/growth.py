# SPDX-License-Identifier: Apache-2.0
"""The picture of a sweep: how time and memory grow with the image or the batch."""

import json
import math

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from src.errors import UserError
from src.measure.machine import machine_text
from src.measure.records import setting_of
from src.measure.setting import PHASES, size_text

AXIS = {"image_size": "root of height x width (pixels)", "batch_size": "batch size (images)"}
STYLE = {"forward": "--", "train": "-"}


def plot_growth(records, swept, png):
    """Draw the `records` of a sweep over "image_size" or "batch_size" into the picture file `png`.

    Bars span the quartiles of the runs.

    Raises:
        UserError: the picture cannot be written.
    """
    figure, (image, pixel, memory) = plt.subplots(1, 3, figsize=(15, 4.6), layout="constrained")
    models = list(dict.fromkeys(setting_of(record).name for record in records))
    for colour, model in enumerate(models):
        for phase in PHASES:
            series = [record for record in records if setting_of(record).name == model and phase in record]
            series.sort(key=lambda record: _place(record, swept))
            if series:
                look = {"color": f"C{colour}", "linestyle": STYLE[phase], "marker": "o", "markersize": 4}
                _draw(image, pixel, memory, series, swept, phase, look | {"label": f"{model}, {phase}"})
    image.set(title="Time per image", ylabel="median time per image (ms)")
    pixel.set(title="Time per pixel", ylabel="median time per pixel (µs)")
    memory.set(title="Peak memory", ylabel="peak memory (GB)")
    for axes in (image, pixel, memory):
        axes.set_xlabel(AXIS[swept])
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(_title(records[0], swept))
    try:
        figure.savefig(png, dpi=150)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write --plot {png}: {getattr(error, 'strerror', None) or error}") from error
    finally:
        plt.close(figure)


def _place(record, swept):
    """Return where on the axis a record lies."""
    return math.sqrt(math.prod(record["image_size"])) if swept == "image_size" else record["batch_size"]


def _title(record, swept):
    """Name what the sweep holds fixed."""
    fixed = f"batch {record['batch_size']}" if swept == "image_size" else size_text(record["image_size"])
    options = f", options {json.dumps(record['options'])}" if record["options"] else ""
    target = record["device_target"]
    place = machine_text(record["machine"], target)
    return f"{fixed}, {target}, {setting_of(record).precision}, {place}{options}"


def _draw(image, pixel, memory, series, swept, phase, look):
    pixels = [math.prod(record["image_size"]) for record in series]
    at = [_place(record, swept) for record in series]
    figures = [record[phase] for record in series]
    for axes, scale in ((image, [1] * len(series)), (pixel, [1e3 / count for count in pixels])):
        low, middle, high = (
            [figure[f"ms_per_image{name}"] * factor for figure, factor in zip(figures, scale)]
            for name in ("_q1", "", "_q3")
        )
        spread = [[m - q for m, q in zip(middle, low)], [h - m for h, m in zip(high, middle)]]
        axes.errorbar(at, middle, yerr=spread, capsize=3, **look)
    memory.plot(at, [figure["peak_gb"] for figure in figures], **look)
