# SPDX-License-Identifier: Apache-2.0
"""The picture of the decomposition: operations and time of both stages, and their shares against the channels."""

from dataclasses import replace

from src.study.decomposition import FORMULAS, operations, share
from src.study.picture import save, subplots

STAGES = {"I": ("C0", "stage I: 1x1 convolutions"), "II": ("C1", "stage II: all that follows")}
CHANNELS = [16 << step for step in range(8)]


def draw(place, rows, setting, png):
    """Draw the `rows` of `decompose` into the picture file `png`."""
    figure, (count, time, growth) = subplots(3)
    _draw_stages(count, rows, "counted", "{:.1f} M", 1e6)
    count.set(title="Operations, counted", ylabel="share of multiply-adds (additions of shift and sum) (%)")
    _draw_stages(time, rows, "ms_per_image", "{:.2f} ms")
    time.set(title="Time an image, medians of the operators", ylabel="share of time (%)")
    for number, module in enumerate(FORMULAS):
        curve = [_share_at(replace(place, in_channels=c, out_channels=c, groups=1), module) for c in CHANNELS]
        growth.plot(CHANNELS, curve, color=f"C{number + 2}", marker=".", label=module)
    growth.set_xscale("log", base=2)
    growth.set_xticks(CHANNELS, CHANNELS)
    growth.set(
        title="Stage I against channels, by formula",
        xlabel="channels in and out",
        ylabel="share of stage I in operations (%)",
        ylim=(0, 102),
    )
    growth.axvline(place.in_channels, color="grey", linestyle=":", label="channels here")
    growth.grid(alpha=0.3)
    growth.legend()
    of_operations, of_time = (
        ", ".join(f"{100 * share(rows, row, figure):.1f} %" for row in rows if row["stage"] == "I")
        for figure in ("counted", "ms_per_image")
    )
    title = f"Stage I of {', '.join(FORMULAS)}: {of_operations} of the operations, but {of_time} of the time"
    save(figure, title, setting, png)


def _draw_stages(axes, rows, figure, text, unit=1):
    """Draw the shares of both stages in the sum of each module, which stands over its bar."""
    bottom = [0.0] * len(FORMULAS)
    for stage, (colour, label) in STAGES.items():
        shares = [100 * share(rows, row, figure) for row in rows if row["stage"] == stage]
        bars = axes.bar(list(FORMULAS), shares, 0.6, bottom, color=colour, label=label)
        axes.bar_label(bars, [f"{part:.1f} %" if part > 2 else "" for part in shares], label_type="center")
        bottom = [below + part for below, part in zip(bottom, shares)]
    sums = [sum(row[figure] for row in rows if row["module"] == module) / unit for module in FORMULAS]
    axes.bar_label(bars, [text.format(one) for one in sums], padding=3)
    axes.set_ylim(0, 107)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=2, frameon=False)


def _share_at(place, module):
    one, two = operations(place)[module]
    return 100 * one / (one + two)
