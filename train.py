# SPDX-License-Identifier: Apache-2.0
"""Train a model: `python train.py --config config/NAME.yaml [--data_dir D] [--output_dir O] [--resume auto]`."""

from src.cli import config_parser, parse_with_config
from src.errors import entry_point


@entry_point
def main():
    parser = config_parser("Train a model and evaluate it after every epoch.")
    parser.add_argument(
        "--resume",
        metavar="auto|FILE",
        help="go on from a last.ckpt; auto: from the one in the output folder, or from scratch where there is none",
    )
    arguments, config = parse_with_config(parser)

    # MindSpore takes seconds to load, and src.device has to be the first to load it.
    from src.device import setup_device
    from src.training.trainer import train

    world = setup_device(config.device)
    result = train(config, world, arguments.resume)
    if world.rank == 0:
        print(
            f"trained {config.model.name} for {result['epoch']} epochs: top-1 {result['top1']:.2f} %, "
            f"best {result['best_top1']:.2f} %; checkpoints, metrics and curves are in {config.output_dir}"
        )


if __name__ == "__main__":
    main()
