# SPDX-License-Identifier: Apache-2.0
"""Measure how fast training images are made, against a bare decode and crop of the same files on the same cores.

    python scripts/benchmark_data.py --config config/resnet50_imagenet.yaml --data_dir imagenet

The bare one is OpenCV (libjpeg-turbo): decode the file, cut a random crop, resize it; no flip, no normalisation, no
batches. All take turns, after a round that is not counted. CPU time is steadier than speed where a machine is shared.
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
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.cli import config_parser, parse_with_config
from src.errors import UserError, entry_point


@entry_point
def main():
    arguments, config = parse_arguments()

    # MindSpore takes seconds to load.
    from src.data.dataset import create_dataset, decoding_threads, iterate
    from src.data.image_folder import list_images, list_split

    data, model = config.data, config.model
    listed = list_images(Path(data.data_dir, data.train_split))
    files = [str(listed.path(position)) for position in range(listed.images)]
    random.Random(0).shuffle(files)
    images = min(arguments.images, len(files) // data.batch_size * data.batch_size)
    threads = decoding_threads(data)
    # The threads of the pool are all there are.
    cv2.setNumThreads(1)

    def bare(_):
        prepare = partial(decode_and_crop, data=data, size=model.size)
        with ThreadPoolExecutor(threads) as pool:
            return sum(1 for _ in pool.map(prepare, files[:images]))

    def training(settings, epoch):
        dataset = create_dataset(settings, model.image_size, model.in_channels, "train", epoch=epoch)
        made = 0
        for _, label in iterate(dataset):
            made += len(label)
            if made >= images:
                break
        return made

    contestants = {"OpenCV decode and crop": bare, "training, folder": partial(training, data)}
    if arguments.packed_dir:
        packed = dataclasses.replace(data, data_dir=arguments.packed_dir)
        list_split(packed, "train")
        contestants["training, MindRecord"] = partial(training, packed)
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


def decode_and_crop(path, data, size):
    """Return a random crop of an image file, `size` (H, W) pixels, drawn as `data` says."""
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    height, width = image.shape[:2]
    for _ in range(10):
        area = height * width * random.uniform(*data.crop_scale)
        ratio = random.uniform(*data.crop_ratio)
        across, down = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if across <= width and down <= height:
            break
    else:
        across = down = min(width, height)
    x, y = random.randint(0, width - across), random.randint(0, height - down)
    how = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}[data.interpolation]
    return cv2.resize(image[y : y + down, x : x + across], size[::-1], interpolation=how)


if __name__ == "__main__":
    main()
