# SPDX-License-Identifier: Apache-2.0
"""Convert published PyTorch weights to a checkpoint, or with --reverse a checkpoint to what the published code loads.

    python scripts/convert_checkpoint.py --model swin_tiny --input swin_tiny.pth --output swin_tiny.ckpt

Nothing is lost or left over unsaid: each tensor is listed, and one too many or too few is an error.
"""

import argparse
import dataclasses
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.config import DeviceConfig, ModelConfig, changed_model, load_config
from src.errors import UserError, entry_point
from src.image_size import sides


@entry_point
def main():
    arguments, overrides = parse_arguments()
    if arguments.image_size is not None:
        arguments.image_size = wanted_size(arguments.image_size)
    check(arguments)
    model = wanted_model(arguments, overrides)

    # MindSpore takes seconds to load.
    from src.device import setup_device

    setup_device(DeviceConfig())

    from src.convert.conversion import model_of, to_checkpoint, to_pytorch
    from src.convert.forms import form_of
    from src.convert.published_code import WrongConversion

    form_of(model)
    if arguments.reverse and not arguments.config:
        model = changed_model(model_of(arguments.input, model.name), overrides)
    if arguments.image_size is not None:
        model = dataclasses.replace(model, image_size=arguments.image_size)
    files = arguments.input, arguments.output
    try:
        if arguments.reverse:
            report = to_pytorch(*files, model, arguments.verify)
        else:
            classes = model.num_classes if arguments.config else None
            classes = classes if arguments.num_classes is None else arguments.num_classes
            report = to_checkpoint(*files, model, classes, arguments.drop_head, arguments.verify, arguments.entry)
    except WrongConversion as error:
        sys.exit(f"error: {error}")
    print_report(report, arguments)


def parse_arguments():
    parser = argparse.ArgumentParser(
        description="Convert published PyTorch weights to a checkpoint, or back.", allow_abbrev=False
    )
    parser.add_argument("--input", required=True, metavar="FILE", help="PyTorch file; with --reverse a .ckpt file")
    parser.add_argument("--output", required=True, metavar="FILE", help=".ckpt file; with --reverse a PyTorch file")
    parser.add_argument("--model", metavar="NAME", help="model of the file, with its usual settings")
    parser.add_argument("--config", metavar="FILE", help="instead of --model: YAML file that describes it")
    parser.add_argument_group(
        "settings", "--model.KEY VALUE, after either, overrides one, as --model.options.window 12 for wider windows"
    )
    parser.add_argument("--reverse", action="store_true", help="from a checkpoint to PyTorch")
    parser.add_argument("--entry", metavar="NAME", help="of a PyTorch file with several sets of weights, as model_ema")
    parser.add_argument("--num_classes", type=int, metavar="K", help="default: as many as the PyTorch file has")
    parser.add_argument("--drop_head", action="store_true", help="start a new classifier instead of the file's")
    parser.add_argument(
        "--image_size",
        type=int,
        nargs="+",
        metavar="S",
        help="of the result, one number or height and width; positions of PVT and Swin are interpolated; default 224",
    )
    parser.add_argument(
        "--verify",
        nargs="?",
        const="",
        metavar="FOLDER",
        help="also run the published network, whose repository was cloned to FOLDER (resnet50: torchvision's), and "
        "write only if both compute the same",
    )
    return parser.parse_known_args()


def check(arguments):
    """Refuse files and flags that do not go together, before anything heavy is loaded."""
    source, output = Path(arguments.input), Path(arguments.output)
    if [source.suffix == ".ckpt", output.suffix == ".ckpt"] != [arguments.reverse, not arguments.reverse]:
        raise UserError(
            f"--input {source} and --output {output} do not fit together: one is a .ckpt file, the output without "
            "--reverse, the input with it"
        )
    if not source.is_file():
        raise UserError(f"no file {source}; give the path of the file to convert as --input")
    if not output.resolve().parent.is_dir():
        raise UserError(f"the folder of --output {output} does not exist; make it first")
    if arguments.reverse and (arguments.drop_head or arguments.num_classes is not None or arguments.entry is not None):
        raise UserError(
            "--reverse converts a checkpoint with its classifier; leave --drop_head, --num_classes and --entry out"
        )


def wanted_size(numbers):
    """Return the `image_size` that one or two numbers of the command line say."""
    size = numbers[0] if len(numbers) == 1 else numbers
    try:
        sides(size)
    except ValueError as error:
        raise UserError(f"--image_size: {error}") from error
    return size


def wanted_model(arguments, overrides):
    """Return the `ModelConfig` that `--config` or `--model` names."""
    if (arguments.config is None) == (arguments.model is None):
        raise UserError("give either --model NAME or --config FILE")
    if arguments.config:
        return load_config(arguments.config, overrides).model
    return changed_model(ModelConfig(arguments.model), overrides)


def print_report(report, arguments):
    """Print the tensors side by side, and what became of them."""
    head = ("checkpoint", "shape", "PyTorch", "shape", "")
    rows = [head, *(tuple(map(str, row)) for row in report.rows)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    model, notes = report.model, Counter(note for *_, note in report.rows)
    for sentence in report.said:
        print(sentence)
    size = " x ".join(map(str, sides(model.image_size)))
    print(f"{model.title}, {model.num_classes} classes, image size {size}: {len(report.rows)} tensors")
    for note, meaning in (
        ("interpolated", "tables of positions fitted to this image size and its windows"),
        ("initial value", "parameters of a new classifier, to be trained"),
    ):
        if notes[note]:
            print(f"{notes[note]} {meaning}")
    if report.buffers:
        done = "made" if arguments.reverse else "left out"
        print(f"{report.buffers} constants and counters that are no weights {done}")
    if report.difference is not None:
        print(f"the published network and this one agree within {report.difference:.0e} of the largest logit")
    print(f"written to {arguments.output}")


if __name__ == "__main__":
    main()
