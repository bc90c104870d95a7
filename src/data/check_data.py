# SPDX-License-Identifier: Apache-2.0
"""Looking at every image before training (`--check_data`): the damaged ones are named, and refused or left out."""

import dataclasses
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import islice

import numpy as np

from src.cli import follow
from src.data.damaged_list import write_damaged_list
from src.data.dataset import decoding_threads
from src.data.image_folder import Split, list_split, split_name
from src.data.packing import check
from src.data.records import PackedSplit
from src.data.transforms import read_image
from src.errors import UserError

# Images given to the processes at once: few enough to show progress.
_CHUNK = 1024


def check_data(data, splits, world, sum_over_workers):
    """Decode every image of `splits`; of packed ones compare every record with what was packed.

    The workers of a job share the images, and all learn the same. Each prints the damaged ones that it finds. They are
    named in `data.damaged_list`, or refused where that is empty.

    Args:
        data: `DataConfig`.
        splits: of "train" and "val".
        world (World): this worker among the others, each of which has to call this.
        sum_over_workers: `src.training.parallel.sum_over_workers`.

    Raises:
        UserError: images are damaged and not to be left out, or shards are.
    """
    damaged = {split: _damaged(data, split, world, sum_over_workers) for split in splits}
    count = sum(map(len, damaged.values()))
    if count and not data.damaged_list:
        raise UserError(
            f"{count} damaged image(s) in {data.data_dir}, named above; replace or remove them, or leave them out: "
            "add --data.damaged_list FILE"
        )
    if data.damaged_list:
        for split, images in damaged.items():
            write_damaged_list(data.damaged_list, split_name(data, split), images)


def count_left_out(data, splits):
    """Return the line that says how many images of `splits` are left out."""
    counts = []
    for split in splits:
        listed = list_split(data, split)
        left_out = len(getattr(listed, "left_out", ()))
        counts.append(f"{left_out} of {listed.images + left_out} images of {split_name(data, split)}")
    return f"left out as damaged ({data.damaged_list}): {', '.join(counts)}"


def _damaged(data, split, world, sum_over_workers):
    """Return the damaged images of one split as CLASS/IMAGE."""
    # All, also those that an earlier check named.
    listed = list_split(dataclasses.replace(data, damaged_list=""), split)
    what = f"checking {split_name(data, split)}"
    if isinstance(listed, PackedSplit):
        follow(check(listed), what, 0, listed.images)
    if not isinstance(listed, Split):
        return []
    files = [file for file, _ in listed.files()]
    share = range(world.rank, len(files), world.size)
    is_damaged = np.zeros(len(files), np.float32)

    def work():
        # MindSpore decodes one image at a time in a process, however many threads ask.
        processes = max(1, min(decoding_threads(data) // world.size, len(share)))
        positions = iter(share)
        with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
            while chunk := list(islice(positions, _CHUNK)):
                paths = [listed.folder / files[position] for position in chunk]
                for position, problem in zip(chunk, pool.map(_problem, paths, chunksize=16)):
                    if problem:
                        print(problem, file=sys.stderr, flush=True)
                        is_damaged[position] = 1
                yield len(chunk)

    follow(work(), what, 0, len(share))
    return [files[position] for position in np.flatnonzero(sum_over_workers(is_damaged, world))]


def _problem(path):
    """Return what is wrong with an image file; None if nothing."""
    try:
        read_image(path)
    except UserError as error:
        return str(error)
    return None
