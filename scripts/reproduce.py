# SPDX-License-Identifier: Apache-2.0
"""The paper's own studies, each a table on standard output, a picture and a JSON file.

    python scripts/reproduce.py decomposition   a convolution as 1x1 convolutions, shift and sum; what its stages cost
    python scripts/reproduce.py paths           either path alone, and their sum with weights more or less free
    python scripts/reproduce.py shift           slices, fixed kernels, learned kernels: accuracy and speed
    python scripts/reproduce.py cost            accuracy against multiply-adds and time, ACmix and plain models

The last three train a model many times, by default on the digits. Stopped, they go on with the same command: finished
trainings are not repeated, and one that was stopped goes on from its last checkpoint.
"""

import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.cli import Parser, config_parser, parse_with_config
from src.config import DeviceConfig
from src.errors import UserError, entry_point
from src.interrupt import keep_ctrl_c
from src.measure.setting import parse_image_size
from src.measure.table import render

TRAINED = ("paths", "shift", "cost")
DIGITS = "config/acmix_resnet_digits.yaml"
# Options of the decomposition: default and meaning.
NUMBERS = {
    "in_channels": (256, "channels of the input"),
    "out_channels": (256, "channels of the output"),
    "kernel": (3, "side of the kernel, odd"),
    "stride": (1, "step"),
    "dilation": (1, "spacing of the kernel"),
    "groups": (1, "of the convolution"),
    "kernel_att": (7, "side of the attention window, odd"),
    "heads": (4, "of the attention"),
}


@entry_point
def main():
    keep_ctrl_c()
    if sys.argv[1:2] == ["decomposition"]:
        decompose()
    else:
        study_variants()


def decompose():
    """Take one convolution apart."""
    args = parse_convolution()

    # MindSpore takes seconds to load.
    from src.device import setup_device

    setup_device(DeviceConfig())

    from src.study import decomposition
    from src.study.decomposition_picture import draw
    from src.study.report import versions_text, write_json

    place = decomposition.Place(size=args.size, **{name: getattr(args, name) for name in NUMBERS})
    found = decomposition.decompose(place)
    setting = (
        f"{place.in_channels} -> {place.out_channels} channels, {place.kernel} x {place.kernel} kernel, stride "
        f"{place.stride}, dilation {place.dilation}, groups {place.groups}, map {place.size[0]} x {place.size[1]}; "
        f"attention {place.kernel_att} x {place.kernel_att}, {place.heads} heads"
    )
    folder = make_folder(args.output_dir or "outputs/decomposition")
    draw(place, found["rows"], f"{setting}; CPU, {versions_text()}", folder / "decomposition.png")
    content = {"study": "decomposition", "place": dataclasses.asdict(place), **found}
    write_json(folder / "decomposition.json", content)
    print(render(*decomposition.table(found["rows"]), args.markdown))
    print(f"\n{setting}")
    print(
        f"largest difference between conv2d and 1x1 + shift + sum: {found['largest_difference']:.1e}, "
        f"{found['largest_difference'] / found['largest_output']:.1e} of the largest output"
    )


def parse_convolution():
    parser = Parser(
        prog="reproduce.py decomposition",
        description="A convolution as 1x1 convolutions, shift and sum; its two stages beside attention's and ACmix's.",
        allow_abbrev=False,
    )
    for name, (default, meaning) in NUMBERS.items():
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{meaning}; default {default}")
    parser.add_argument("--size", default="14", metavar="S|HxW", help="of the input, pixels; default 14")
    add_output_arguments(parser, "outputs/decomposition")
    args = parser.parse_args(sys.argv[2:])
    for name in NUMBERS:
        if getattr(args, name) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(args, name)}")
    args.size = parse_image_size(args.size, "--size")
    return args


def study_variants():
    """Train the variants of a study, measure them, and report."""
    args, config = parse_study()
    seeds = [config.train.seed + number for number in range(args.seeds)]
    make_folder(config.output_dir)

    # MindSpore takes seconds to load.
    from importlib import import_module

    from src.device import setup_device

    world = setup_device(config.device)

    from src.study.report import compare, comparison_note, comparison_table, conditions, row_of, write_json
    from src.study.runs import chosen, sizes, train_all
    from src.study.speed import times

    study, folder = import_module(f"src.study.{args.study}"), Path(config.output_dir)
    variants = chosen(study.variants(config), args.variants)
    # Before hours of training: a model that does not take its options ends the study here.
    for variant in variants:
        variant.build(variant.model)
    results = train_all(variants, config, seeds, world)
    if world.rank > 0:
        return
    if results is None:
        print(f"stopped as asked, and saved in {folder}; the same command goes on from there")
        return
    if world.size > 1:
        print(f"trained in {folder}; the same command in a process of its own reads that, measures and reports")
        return
    records = times(variants, config, folder / "times.jsonl") if study.IS_TIMED else {}
    rows = [row_of(v, sizes(v), results[v.name], records.get(v.name)) for v in variants]
    line = conditions(config, seeds)
    study.draw(rows, line, folder / f"{args.study}.png")
    pairs = study.pairs(rows)
    content = {"study": args.study, "seeds": seeds, "config": config.to_dict(), "rows": rows}
    write_json(folder / f"{args.study}.json", content | {"comparisons": [compare(*pair) for pair in pairs]})
    print(render(*study.table(rows), args.markdown))
    if pairs:
        print(f"\n{render(*comparison_table(pairs), args.markdown)}\n\n{comparison_note(len(seeds))}")
    print(f"\n{line}\npicture and figures: {folder}/{args.study}.png and .json")


def parse_study():
    parser = config_parser(__doc__, config=DIGITS)
    parser.usage = "%(prog)s STUDY [--config FILE] [options] [--section.key VALUE ...]"
    parser.add_argument("study", choices=("decomposition", *TRAINED), help="`decomposition --help` has its own options")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="trainings of each variant; default 3")
    parser.add_argument(
        "--variants",
        nargs="+",
        metavar="NAME",
        help="train these alone, by the names of their folders; of cost: models of the family, also sasa_ ones",
    )
    add_output_arguments(parser, "outputs/STUDY_<name of the YAML file>")
    args, config = parse_with_config(parser)
    if args.seeds < 1:
        raise UserError(f"--seeds must be at least 1, got {args.seeds}")
    output_dir = args.output_dir or f"outputs/{args.study}_{Path(args.config).stem}"
    return args, dataclasses.replace(config, output_dir=output_dir)


def add_output_arguments(parser, folder):
    parser.add_argument("--output_dir", metavar="DIR", help=f"for all results; default {folder}")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")


def make_folder(path):
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write --output_dir {path} ({error.strerror}); choose another") from error
    return Path(path)


if __name__ == "__main__":
    main()
