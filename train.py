# SPDX-License-Identifier: Apache-2.0
"""Train a model: `python train.py --config config/NAME.yaml [--data_dir D] [--output_dir O] [--resume auto]`."""

import sys

from src.cli import config_parser, parse_with_config
from src.errors import entry_point
from src.interrupt import keep_ctrl_c


@entry_point
def main():
    parser = config_parser("Train a model and evaluate it after every epoch.")
    parser.add_argument(
        "--resume",
        metavar="auto|FILE",
        help="go on from a last.ckpt; auto: from the one in the output folder, or from scratch where there is none",
    )
    parser.add_argument(
        "--allow_changes",
        action="store_true",
        help="resume also with another number of workers, batch size or number of images, from the last whole epoch",
    )
    parser.add_argument(
        "--check_data",
        action="store_true",
        help="decode every image first; name the damaged ones and end, or, with data.damaged_list, leave them out",
    )
    arguments, config = parse_with_config(parser)
    keep_ctrl_c()

    # MindSpore takes seconds to load.
    from src.data.check_data import count_left_out
    from src.device import setup_device
    from src.tasks import create_task
    from src.training.trainer import train

    world, task = setup_device(config.device), create_task(config)
    if arguments.check_data:
        task.check(("train", "val"), world)
    if config.data.damaged_list and world.rank == 0:
        print(count_left_out(config.data, ("train", "val")), file=sys.stderr)
    result = train(task, world, arguments.resume, arguments.allow_changes)
    if world.rank == 0 and result["is_stopped"]:
        print(f"stopped at step {result['step']} as asked, and saved; --resume auto goes on from there")
    elif world.rank == 0:
        print(
            f"trained {config.model.name} for {result['epoch']} epochs: {task.best_name} {result[task.best]:.2f} %, "
            f"best {result['best']:.2f} %; checkpoints, metrics and curves are in {config.output_dir}"
        )


if __name__ == "__main__":
    main()
