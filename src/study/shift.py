# SPDX-License-Identifier: Apache-2.0
"""How to shift (paper, section 4.3 and its ablation): slices, fixed kernels, learnable kernels; accuracy and speed."""

import math

from mindspore.common.initializer import HeUniform, initializer

from src.ops.shift import ShiftSum
from src.study.picture import draw_accuracy, draw_times, save, subplots
from src.study.report import COSTS, best_text, cost_texts, gain_text
from src.study.runs import Variant, built_with, with_options

IS_TIMED = True


def randomise(shift):
    """Let the kernels begin as those of any `nn.Conv2d` do."""
    start = initializer(HeUniform(math.sqrt(5)), shift.weight.shape, shift.weight.dtype)
    shift.weight.set_data(start.init_data())


def variants(config):
    """Return the four of them, for the ACmix model of a `Config`."""
    models = {shift: with_options(config.model, shift=shift) for shift in ("slice", "fixed", "learnable")}
    return [
        Variant("slice", "slices", models["slice"]),
        Variant("fixed", "kernels, fixed", models["fixed"]),
        Variant("random", "kernels, learned from random", models["learnable"], built_with(ShiftSum, randomise)),
        Variant("learnable", "kernels, learned from shifts", models["learnable"]),
    ]


def pairs(rows):
    """Return (row, other) of kernels learned from shifts and each other variant."""
    return [(row, other) for row in rows if row["name"] == "learnable" for other in rows if other is not row]


def table(rows):
    """Return (head, rows) of text."""
    head = ("shift", "parameters, k", *COSTS)
    return head, [(row["label"], f"{row['parameters'] / 1e3:.1f}", *cost_texts(row)) for row in rows]


def draw(rows, setting, png):
    """Draw accuracy and time by variant."""
    figure, (accuracy, time) = subplots(2)
    draw_accuracy(accuracy, rows)
    draw_times(time, rows)
    save(figure, title(rows), setting, png)


def title(rows):
    """Say what is seen: fixed kernels beside slices, in time, and learnable ones beside them, in accuracy."""
    named = {row["name"]: row for row in rows}
    if not {"slice", "fixed", "learnable"} <= {*named}:
        return best_text(rows)
    speed = named["slice"]["forward"]["ms_per_image"] / named["fixed"]["forward"]["ms_per_image"]
    gain = gain_text([(named["learnable"], named["fixed"])])
    return f"Slices take {speed:.2f}x the forward time of fixed kernels; learned ones: top-1 {gain} against fixed"
