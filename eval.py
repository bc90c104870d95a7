# SPDX-License-Identifier: Apache-2.0
"""Evaluate a checkpoint: `python eval.py --config config/NAME.yaml --checkpoint FILE [--data_dir D]`."""

import json
import sys

from src.cli import config_parser, parse_with_config
from src.errors import entry_point


@entry_point
def main():
    parser = config_parser("Evaluate a checkpoint; the last line of the output is one JSON object.")
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="best.ckpt or last.ckpt of a training")
    parser.add_argument(
        "--check_data",
        action="store_true",
        help="decode every image first; name the damaged ones and end, or, with data.damaged_list, leave them out",
    )
    arguments, config = parse_with_config(parser)

    # MindSpore takes seconds to load, and src.device has to be the first to load it.
    from src.data.check_data import check_data, count_left_out
    from src.device import setup_device
    from src.training.evaluate import evaluate_checkpoint
    from src.training.parallel import sum_over_workers

    world = setup_device(config.device)
    if arguments.check_data:
        check_data(config.data, ("val",), world, sum_over_workers)
    if config.data.damaged_list and world.rank == 0:
        print(count_left_out(config.data, ("val",)), file=sys.stderr)
    result, images_per_s = evaluate_checkpoint(config, arguments.checkpoint, world)
    if world.rank == 0:
        print(f"{config.model.name} from {arguments.checkpoint}")
        print(f"top-1 {result['top1']:.2f} %   top-5 {result['top5']:.2f} %   loss {result['loss']:.4f}")
        print(f"{result['samples']} images, {images_per_s:.1f} images/s")
        print(json.dumps(result))


if __name__ == "__main__":
    main()
