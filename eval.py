# SPDX-License-Identifier: Apache-2.0
"""Evaluate a checkpoint: `python eval.py --config config/NAME.yaml --checkpoint FILE [--data_dir D]`."""

import json

from src.cli import config_parser, parse_with_config
from src.errors import entry_point


@entry_point
def main():
    parser = config_parser("Evaluate a checkpoint; the last line of the output is one JSON object.")
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="best.ckpt or last.ckpt of a training")
    arguments, config = parse_with_config(parser)

    # MindSpore takes seconds to load, and src.device has to be the first to load it.
    from src.device import setup_device
    from src.training.evaluate import evaluate_checkpoint

    world = setup_device(config.device)
    result, images_per_s = evaluate_checkpoint(config, arguments.checkpoint, world)
    if world.rank == 0:
        print(f"{config.model.name} from {arguments.checkpoint}")
        print(f"top-1 {result['top1']:.2f} %   top-5 {result['top5']:.2f} %   loss {result['loss']:.4f}")
        print(f"{result['samples']} images, {images_per_s:.1f} images/s")
        print(json.dumps(result))


if __name__ == "__main__":
    main()
