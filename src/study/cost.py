# SPDX-License-Identifier: Apache-2.0
"""Accuracy against multiply-adds and against measured time: ACmix and plain models of a family (paper, section 5.1)."""

import re
from dataclasses import replace
from statistics import mean

from src.models import list_models
from src.study.picture import save, subplots
from src.study.report import COSTS, best_text, cost_texts, gain_text
from src.study.runs import Variant

IS_TIMED = True
# By what the names of the models begin with: what they are called, their colour, and where their sizes are written.
# Names on the outer sides: of two models as accurate, the plain one usually costs less.
KINDS = {"": ("plain", "C1", (-6, -12)), "sasa_": ("attention alone", "C2", (-6, 6)), "acmix_": ("ACmix", "C0", (6, 6))}
AXES = {"multiply_adds": "multiply-adds (M)", "forward": "forward pass (ms an image)", "train": "step (ms an image)"}


def variants(config):
    """Return the models of the family that the model of a `Config` belongs to, each plain one before its ACmix.

    The members of a family are its depths; a model with `model.options.depths` of its own is the only one of its size
    and stands beside its own kinds alone. All options hold for all. Between plain and ACmix stands attention alone,
    where the family has it; that is no usual one.
    """
    own = kind_and_size(config.model.name)[1]
    is_of_own_depths = "depths" in config.model.options
    family = [own] if is_of_own_depths else list_models(f"{re.match('[a-z]+', own)[0]}*")
    plain = [name for name in family if list_models(f"acmix_{name}")]
    names = [prefix + name for name in plain for prefix in KINDS if list_models(prefix + name)]
    return [
        Variant(name, name, replace(config.model, name=name), is_usual=not name.startswith("sasa_")) for name in names
    ]


def kind_and_size(name):
    """Return ("acmix_", "resnet26") of "acmix_resnet26": one of `KINDS`, and what follows it."""
    kind = max((kind for kind in KINDS if name.startswith(kind)), key=len)
    return kind, name.removeprefix(kind)


def pairs(rows):
    """Return (row, other) of each ACmix and the others of its size."""
    named = {kind_and_size(row["name"]): row for row in rows}
    acmix = [(size, row) for (kind, size), row in named.items() if kind == "acmix_"]
    return [(row, named[other, size]) for size, row in acmix for other in ("", "sasa_") if (other, size) in named]


def table(rows):
    """Return (head, rows) of text."""
    head = ("model", "parameters, M", *COSTS)
    return head, [(row["label"], f"{row['parameters'] / 1e6:.3f}", *cost_texts(row)) for row in rows]


def draw(rows, setting, png):
    """Draw accuracy over each of the three costs; of times also the quartiles of the runs."""
    figure, panels = subplots(3)
    for axes, (cost, label) in zip(panels, AXES.items()):
        for kind, (label_of_kind, colour, offset) in KINDS.items():
            if series := [row for row in rows if kind_and_size(row["name"])[0] == kind]:
                _draw(axes, series, cost, {"color": colour}, label_of_kind, offset)
        axes.set(xlabel=label, ylabel="top-1 (%), mean ± standard deviation")
        axes.set_xlim(0, 1.15 * max(cost_of(row, cost, "_q3") for row in rows))
        axes.margins(y=0.12)
        axes.grid(alpha=0.3)
        axes.legend()
    panels[0].set_title("Accuracy and arithmetic")
    panels[1].set_title("Accuracy and time, inference; bars: quartiles")
    panels[2].set_title("Accuracy and time, training; bars: quartiles")
    save(figure, title(rows), setting, png)


def _draw(axes, series, cost, colour, label, offset):
    low, at, high = ([cost_of(row, cost, quartile) for row in series] for quartile in ("_q1", "", "_q3"))
    quartiles = [[x - q for x, q in zip(at, low)], [q - x for x, q in zip(at, high)]]
    means = [row["top1_mean"] for row in series]
    spreads = [row["top1_spread"] or 0 for row in series]
    axes.errorbar(at, means, spreads, quartiles, marker="o", markersize=5, capsize=3, label=label, **colour)
    for row, x, y in zip(series, at, means):
        _, size = kind_and_size(row["name"])
        side = "left" if offset[0] > 0 else "right"
        axes.annotate(size, (x, y), xytext=offset, textcoords="offset points", fontsize=8, ha=side, **colour)


def cost_of(row, cost, quartile=""):
    """Return a key of `AXES` in its unit; of a time also the first or third `quartile`, "_q1" or "_q3"."""
    return row[cost] / 1e6 if cost == "multiply_adds" else row[cost][f"ms_per_image{quartile}"]


def title(rows):
    """Say what is seen: ACmix beside its plain counterparts, the mean over the sizes."""
    twins = [(row, other) for row, other in pairs(rows) if not kind_and_size(other["name"])[0]]
    if not twins:
        return best_text(rows)
    arithmetic, time = (
        mean(cost_of(acmix, cost) / cost_of(plain, cost) for acmix, plain in twins)
        for cost in ("multiply_adds", "forward")
    )
    return (
        f"ACmix over its plain models, mean of the sizes: top-1 {gain_text(twins)}, multiply-adds {arithmetic:.2f}x, "
        f"forward time {time:.2f}x"
    )
