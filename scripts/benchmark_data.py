# SPDX-License-Identifier: Apache-2.0
"""Measure how fast training images are made, against plain OpenCV with the same files on the same cores.

    python scripts/benchmark_data.py --config config/resnet50_imagenet.yaml --data_dir imagenet
    python scripts/benchmark_data.py --config config/fpn_acmix_resnet_scenes.yaml

OpenCV (libjpeg-turbo) decodes a file, cuts a random crop and resizes it; of segmentation it does all steps with an
image and its mask up to the distorted colours. It does not normalise, nor make batches. All take turns, after a round
that is not counted. CPU time is steadier than speed where a machine is shared.
"""

import dataclasses
import os
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

import cv2

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.cli import config_parser, parse_with_config
from src.errors import UserError, entry_point


@entry_point
def main():
    arguments, config = parse_arguments()

    # MindSpore takes seconds to load.
    from src.data.dataset import decoding_threads, iterate
    from src.device import World
    from src.tasks import create_task

    data, task = config.data, create_task(config)
    listed = task.list_files(data.train_split)
    order = random.Random(0).sample(range(listed.images), listed.images)
    images = min(arguments.images, len(order) // data.batch_size * data.batch_size)
    name, prepare = task.yardstick()
    threads = decoding_threads(data)
    # The threads of the pool are all there are.
    cv2.setNumThreads(1)

    def bare(_):
        with ThreadPoolExecutor(threads) as pool:
            return sum(1 for _ in pool.map(partial(prepare, listed), order[:images]))

    def training(task, epoch):
        made = 0
        for _, label in iterate(task.batches("train", World(), epoch)):
            made += len(label)
            if made >= images:
                break
        return made

    tasks = {"training, folder": task}
    if arguments.packed_dir:
        packed = dataclasses.replace(data, data_dir=arguments.packed_dir)
        tasks["training, MindRecord"] = create_task(dataclasses.replace(config, data=packed))
    for task in tasks.values():
        task.open_to_train()
    contestants = {name: bare, **{name: partial(training, task) for name, task in tasks.items()}}
    turns = measure(contestants, arguments.rounds)

    print(f"{images} images a turn, {threads} threads, {arguments.rounds} turns, load {os.getloadavg()[0]:.1f}")
    print_table(turns)


def parse_arguments():
    parser = config_parser("Measure how fast training images are made.")
    parser.add_argument(
        "--packed_dir", metavar="P", help="the same images packed by create_mindrecord.py, also measured"
    )
    parser.add_argument("--images", type=int, default=4096, metavar="N", help="at most as many a turn; default 4096")
    parser.add_argument("--rounds", type=int, default=5, metavar="R", help="turns that count; default 5")
    arguments, config = parse_with_config(parser)
    for name in ("images", "rounds"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name} is {getattr(arguments, name)} but takes at least 1")
    return arguments, config


def measure(contestants, rounds):
    """Return for each contestant (images a second, images a second of CPU time) of each round."""
    turns = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, run in contestants.items():
            began, cpu = time.perf_counter(), time.process_time()
            images = run(number)
            if number:
                turns[name].append((images / (time.perf_counter() - began), images / (time.process_time() - cpu)))
    return turns


def print_table(turns):
    """Print the rows of `measure`: speed, CPU time, and the median over the turns of both against the first."""
    print(f"{'':24s}  images/s  (slowest..fastest)  CPU ms/image   speed  by CPU")
    (base, *_) = turns.values()
    for name, rows in turns.items():
        speeds = sorted(row[0] for row in rows)
        ratios = [median(row[i] / other[i] for row, other in zip(rows, base)) for i in (0, 1)]
        print(
            f"{name:24s}  {median(speeds):8.0f}  ({speeds[0]:7.0f}..{speeds[-1]:7.0f})  "
            f"{1000 / median(row[1] for row in rows):12.2f}  {ratios[0]:5.2f}x  {ratios[1]:5.2f}x"
        )


if __name__ == "__main__":
    main()
