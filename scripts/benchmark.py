# SPDX-License-Identifier: Apache-2.0
"""Measure models side by side: size, multiply-adds, time per image, peak memory, compile time.

    python scripts/benchmark.py acmix_resnet50 --against resnet50 --batch_size 8 --json runs.jsonl
    python scripts/benchmark.py acmix_resnet50 --against resnet50 --runtime onnxruntime --sweep batch_size=1,8
    python scripts/benchmark.py acmix_resnet50 --sweep image_size=112,224,448 --plot growth.png
    python scripts/benchmark.py --compare before.jsonl after.jsonl

Each model lives in a process of its own, so that its peak memory is its own. They take turns, a few runs at a time, so
that what else the machine does falls on all of them alike; a time is the median of its runs.

With --runtime onnxruntime exported files run in place of networks, forward, on as many threads as there are cores: that
of --against as it is deployed, those of the other models unfolded and folded.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.cli import Parser
from src.errors import UserError, entry_point
from src.measure.comparison import HEAD, compare
from src.measure.machine import machine_text
from src.measure.records import append_record, read_records, setting_of
from src.measure.setting import (
    DEVICE_RULES,
    FORMS,
    KERNELS,
    PHASES,
    PHASES_OF,
    Setting,
    add_setting_arguments,
    parse_batch_size,
    parse_image_size,
    parse_options,
    parse_sweep,
    size_text,
)
from src.measure.table import render
from src.measure.turns import measure


@entry_point
def main():
    args = parse_arguments()
    if args.compare:
        rows, warnings = compare(*args.compare)
        print(render(HEAD, rows, args.markdown))
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr)
        return
    phases = {"both": PHASES, None: PHASES_OF[args.runtime]}.get(args.phase, (args.phase,))
    records = []
    for settings in settings_of(args):
        measured = measure(settings, phases, args.rounds, args.runs)
        records += measured
        for record in measured if args.json else ():
            append_record(args.json, record)
    print(render(*table(records, phases, args.against), args.markdown))
    print(f"\n{conditions(records, args)}")
    if args.plot:
        from src.measure.growth import plot_growth  # matplotlib takes a second to load

        plot_growth(records, parse_sweep(args.sweep)[0], args.plot)


def parse_arguments():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="a backbone, or HEAD_BACKBONE as upernet_swin_tiny")
    parser.add_argument("--against", metavar="MODEL", help="measure it too, and print ratios to it")
    add_setting_arguments(parser, batch_size=8)
    parser.add_argument("--runtime", choices=FORMS, default="mindspore", help="what runs them; default mindspore")
    parser.add_argument("--phase", choices=(*PHASES, "both"), help="default both, forward in onnxruntime")
    parser.add_argument("--device_target", choices=DEVICE_RULES["target"].choices, default="CPU", help="default CPU")
    parser.add_argument("--amp_level", choices=DEVICE_RULES["amp_level"].choices, default="O0", help="default O0")
    parser.add_argument(
        "--amp_dtype",
        choices=DEVICE_RULES["amp_dtype"].choices,
        default="float16",
        help="of mixed precision; default float16",
    )
    parser.add_argument(
        "--kernels", choices=KERNELS, default="auto", help="fused where they can be built, or portable; default auto"
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="turns of each model; default 5")
    parser.add_argument("--runs", type=int, default=4, metavar="N", help="timed runs in a turn; default 4")
    parser.add_argument("--sweep", metavar="KEY=V,V", help="image_size=112,224,448 or batch_size=1,2,4")
    parser.add_argument("--plot", metavar="PNG", help="picture of a sweep: time and memory against its values")
    parser.add_argument("--json", metavar="FILE", help="add a JSON line for each model and setting to this file")
    parser.add_argument("--compare", nargs=2, metavar=("A", "B"), help="instead: ratios between two files of --json")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    args = parser.parse_args()
    check(args)
    return args


def check(args):
    """Refuse before anything is measured what would fail after it."""
    if args.compare:
        for flag in ("models", "against", "sweep", "plot", "json"):
            if getattr(args, flag):
                raise UserError(f"--compare reads two files and measures nothing; leave {flag} out")
    if not args.compare and not args.models:
        raise UserError("name a model to measure, as acmix_resnet50, or two files with --compare A B")
    for name in ("rounds", "runs"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(args, name)}")
    if args.runtime == "onnxruntime":
        for flag, only in (("phase", "forward"), ("amp_level", "O0"), ("device_target", "CPU"), ("kernels", "auto")):
            if getattr(args, flag) not in (only, None):
                raise UserError(f"--runtime onnxruntime takes --{flag} {only} only, got {getattr(args, flag)}")
    if args.plot and not args.sweep:
        raise UserError("--plot draws a sweep; add --sweep image_size=112,224,448 or --sweep batch_size=1,2,4")
    for flag in ("json", "plot"):
        path = getattr(args, flag)
        if path and not Path(path).resolve().parent.is_dir():
            raise UserError(f"the folder of --{flag} {path} does not exist; make it first")
    if args.json and Path(args.json).exists():
        read_records(args.json)


def settings_of(args):
    """Return the settings of each model, for each value of the sweep; `--against` comes first."""
    models = dict.fromkeys([args.against, *args.models] if args.against else args.models)
    options = parse_options(args.options)
    sizes = {"batch_size": parse_batch_size(args.batch_size), "image_size": parse_image_size(args.image_size)}
    device = {name: getattr(args, name) for name in ("amp_level", "amp_dtype", "device_target")}
    forms = KERNELS[args.kernels] if args.runtime == "mindspore" else FORMS[args.runtime]
    base = [
        Setting(model=model, options=options, **sizes, **device, form=form)
        for model in models
        for form in (forms[-1:] if model == args.against else forms)
    ]
    if not args.sweep:
        return [base]
    key, values = parse_sweep(args.sweep)
    return [[dataclasses.replace(setting, **{key: value}) for setting in base] for value in values]


def table(records, phases, against):
    """Return (head, rows), a row for each record and phase; with `against`, also the ratios to that model."""
    figures = {"ms/img (quartiles)": "ms_per_image", "GB": "peak_gb", "compile s": "compile_s"}
    head = ["model", "params M", "MACs G", "batch", "image", "phase"]
    for figure in figures:
        head += [figure, "ratio"] if against else [figure]
    rows, reference = [], None
    for record in records:
        if record["model"] == against:
            reference = record  # it comes first in its setting
        sizes = f"{record['parameters'] / 1e6:.2f}", f"{record['multiply_adds'] / 1e9:.2f}"
        for phase in phases:
            row = [setting_of(record).name, *sizes, record["batch_size"], size_text(record["image_size"]), phase]
            for name in figures.values():
                row.append(figure_text(record[phase], name))
                if against:
                    row.append(f"{record[phase][name] / reference[phase][name]:.2f}x")
            rows.append(row)
    return head, rows


def figure_text(figures, name):
    if name != "ms_per_image":
        return f"{figures[name]:.2f}"
    return f"{figures[name]:.2f} ({figures['ms_per_image_q1']:.2f}-{figures['ms_per_image_q3']:.2f})"


def conditions(records, args):
    """Return the line that belongs under a table."""
    machine = records[0]["machine"]
    loads = [record["machine"]["load_average"] for record in records]
    parts = [
        f"{args.device_target}, {setting_of(records[0]).precision}, {machine_text(machine, args.device_target)}",
        f"load average {min(loads)} to {max(loads)}",
        f"MindSpore {machine['mindspore']}, onnxruntime {machine['onnxruntime']}",
        f"NumPy {machine['numpy']}, Python {machine['python']}",
        f"medians of {args.rounds} x {args.runs} runs",
    ]
    if args.options != "{}":
        parts.append(f"options {args.options}")
    if args.against:
        parts.append(f"ratios to {args.against} in the same setting")
    return "; ".join(parts)


if __name__ == "__main__":
    main()
