# SPDX-License-Identifier: Apache-2.0
"""Where the time of a forward pass or training step goes on CPU, beside what the machine could do at best.

    python scripts/profile_model.py acmix_resnet50 --phase train --batch_size 8
    python scripts/profile_model.py acmix_resnet50 --phase forward --by cell

Beside them stand the multiply-adds at the rate of a large matrix product, and the inputs of the operators at the rate
of a copy, both measured here. A step is taken for three times the multiply-adds of a forward pass. The profiler does
not list outputs: an operator that writes less than it reads, or reads a part of its input, can take less than the copy.
"""

import argparse
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.cli import Parser
from src.config import DeviceConfig
from src.errors import UserError, entry_point
from src.measure.machine import machine
from src.measure.setting import (
    PHASES,
    Setting,
    add_setting_arguments,
    parse_batch_size,
    parse_image_size,
    parse_options,
    size_text,
)
from src.measure.table import render

# Multiply-adds of a phase, in forward passes: the gradients of inputs and of weights cost one each.
PASSES = {"forward": 1, "train": 3}


@entry_point
def main():
    args = parse_arguments()
    setting = Setting(
        model=args.model,
        options=parse_options(args.options),
        batch_size=parse_batch_size(args.batch_size),
        image_size=parse_image_size(args.image_size),
        amp_level="O0",
        amp_dtype="float16",
        device_target="CPU",
    )
    here = machine()

    # MindSpore takes seconds to load.
    from src.device import setup_device

    setup_device(DeviceConfig())

    from src.measure.operators import group, profile
    from src.measure.rates import copy_rate, matmul_rate
    from src.measure.workload import Workload

    workload = Workload(setting)
    try:
        _, multiply_adds = workload.sizes()
    except ValueError as error:
        raise UserError(f"{args.model}: {error}") from error
    workload.compile(args.phase, args.runs)
    workload.warm_up()
    seconds = []
    operators = profile(lambda: seconds.extend(workload.times(1)), args.runs)
    run_ms = 1e3 * statistics.median(seconds)
    rates = matmul_rate(), copy_rate()
    shares = group(operators, args.by, args.runs)
    print(render(*table(shares, args.by, args.top, rates[1]), args.markdown))
    multiply_adds *= PASSES[args.phase] * setting.batch_size
    print(
        "\n" + "\n".join(summary(setting, args, shares, run_ms, multiply_adds, rates, {**here, **workload.versions()}))
    )


def parse_arguments():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("model", metavar="MODEL", help="name of create_model")
    add_setting_arguments(parser, batch_size=2)
    parser.add_argument("--phase", choices=PHASES, default="forward", help="default forward")
    parser.add_argument("--by", choices=("operator", "cell", "both"), default="operator", help="rows; default operator")
    parser.add_argument("--runs", type=int, default=10, metavar="N", help="profiled runs; default 10")
    parser.add_argument("--top", type=int, default=20, metavar="N", help="rows before the rest is added up; default 20")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    args = parser.parse_args()
    for name in ("runs", "top"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(args, name)}")
    return args


def table(shares, by, top, copy_rate):
    """Return (head, rows): the `top` longest shares, one row for all others, and their sum."""
    lines = [(share.name, [share]) for share in shares[:top]]
    if shares[top:]:
        lines.append((f"{len(shares[top:])} others", shares[top:]))
    lines.append(("all", shares))
    whole = sum(share.ms for share in shares)
    rows = []
    for name, part in lines:
        calls, ms, read = (sum(getattr(share, field) for share in part) for field in ("calls", "ms", "bytes"))
        rows.append(
            (
                name,
                f"{calls:.0f}",
                f"{ms:.2f}",
                f"{ms / whole:.1%}",
                f"{read / 1e6:.1f}",
                f"{1e3 * read / copy_rate:.2f}",
            )
        )
    return (by, "calls", "ms", "share", "MB read", "ms to copy them"), rows


def summary(setting, args, shares, run_ms, multiply_adds, rates, here):
    """Return the lines under the table: what a run takes, its floor, and the conditions."""
    operators_ms, read = sum(share.ms for share in shares), sum(share.bytes for share in shares)
    matmul_rate, copy_rate = rates
    return [
        f"- one {args.phase} run: {run_ms:.1f} ms (median of {args.runs}), {operators_ms:.1f} ms of it in operators",
        f"- floor of arithmetic: {multiply_adds / 1e9:.2f} G multiply-adds at {matmul_rate / 1e9:.1f} G/s: "
        f"{1e3 * multiply_adds / matmul_rate:.1f} ms",
        f"- floor of memory: {read / 1e9:.3f} GB read by operators at {copy_rate / 1e9:.1f} GB/s (a copy, which writes "
        f"as much): {1e3 * read / copy_rate:.1f} ms",
        f"- {setting.label}, batch {setting.batch_size}, {size_text(setting.image_size)}, {setting.precision}",
        f"- {here['cpu']}, {here['cores']} cores, load average {here['load_average']}, MindSpore {here['mindspore']}",
    ]


if __name__ == "__main__":
    main()
