# SPDX-License-Identifier: Apache-2.0
"""Evaluate a checkpoint: `python eval.py --config config/NAME.yaml --checkpoint FILE [--data_dir D]`.

Or, with `--model FILE` in place of `--checkpoint`, an exported .onnx or .mindir file.
"""

import dataclasses
import json
import os
import sys
from pathlib import Path

from src.cli import config_parser, parse_with_config
from src.crash import survive_crashes
from src.errors import UserError, entry_point


@entry_point
def main():
    parser = config_parser("Evaluate a checkpoint; the last line of the output is one JSON object.")
    judged = parser.add_mutually_exclusive_group(required=True)
    judged.add_argument("--checkpoint", metavar="FILE", help="best.ckpt or last.ckpt of a training")
    judged.add_argument("--model", metavar="FILE", help="a .onnx or .mindir file with its description beside it")
    parser.add_argument("--key", metavar="KEY|@FILE", help="of an encrypted .mindir, or the file that holds it")
    parser.add_argument(
        "--per_class",
        metavar="FILE",
        help="write a .csv file with a line for each class, and the confusion matrix as a .png beside it",
    )
    parser.add_argument(
        "--check_data",
        action="store_true",
        help="decode every image first; name the damaged ones and end, or, with data.damaged_list, leave them out",
    )
    arguments, config = parse_with_config(parser)
    if arguments.per_class:
        check_output(arguments.per_class)
    if arguments.key and not arguments.model:
        raise UserError("--key goes with an encrypted --model; leave it out")
    # Workers of a job have a launcher, which watches them.
    if "MS_ROLE" not in os.environ:
        survive_crashes(
            f"{arguments.model or arguments.checkpoint}, or an image, has crashed the library that reads it; "
            "--check_data names the image"
        )

    # MindSpore takes seconds to load.
    from src.data.check_data import count_left_out
    from src.device import setup_device
    from src.tasks import create_task

    # onnxruntime has devices of its own; MindSpore need not have them.
    is_onnx = (arguments.model or "").endswith(".onnx")
    world = setup_device(dataclasses.replace(config.device, target="CPU") if is_onnx else config.device)
    task = create_task(config)
    if arguments.check_data:
        task.check(("val",), world)
    if config.data.damaged_list and world.rank == 0:
        print(count_left_out(config.data, ("val",)), file=sys.stderr)
    if arguments.model:
        from src.deploy.running.evaluate import evaluate_exported
        from src.deploy.running.key import read_key

        result, images_per_s = evaluate_exported(
            config, arguments.model, world, read_key(arguments.key), arguments.per_class
        )
    else:
        from src.training.evaluate import evaluate_checkpoint

        result, images_per_s = evaluate_checkpoint(task, arguments.checkpoint, world, arguments.per_class)
    if world.rank == 0:
        print(f"{config.model.name} from {arguments.model or arguments.checkpoint}")
        print(task.told(result))
        print(f"{result['samples']} images, {images_per_s:.1f} images/s")
        print(json.dumps(result))


def check_output(path):
    """Refuse, before an evaluation, a --per_class that could not be written after it."""
    if Path(path).suffix != ".csv" or not Path(path).resolve().parent.is_dir():
        raise UserError(f"--per_class {path} takes a .csv file in a folder that exists")


if __name__ == "__main__":
    main()
