# SPDX-License-Identifier: Apache-2.0
"""Looking at every image before training (`--check_data`): the damaged ones are named, and refused or left out."""

import dataclasses
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice

import numpy as np

from src.cli import follow
from src.data.damaged_list import write_damaged_list
from src.data.dataset import decoding_threads, describe_turned
from src.data.image_files import decode_file, read_file
from src.data.image_folder import Split, list_split, split_name
from src.data.packed_splits import PackedSplit
from src.data.packing import check
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
        listed = list_split(dataclasses.replace(data, train_limit=0), split)
        left_out = getattr(listed, "left_out", 0)
        counts.append(f"{left_out} of {listed.images + left_out} images of {split_name(data, split)}")
    return f"left out as damaged ({data.damaged_list}): {', '.join(counts)}"


def _damaged(data, split, world, sum_over_workers):
    """Return the damaged images of one split as CLASS/IMAGE."""
    # All, also those that an earlier check named.
    listed = list_split(dataclasses.replace(data, damaged_list="", train_limit=0), split)
    what = f"checking {split_name(data, split)}"
    if isinstance(listed, PackedSplit):
        follow(check(listed.records), what, 0, listed.images)
    if not isinstance(listed, Split):
        return []
    if world.rank == 0:
        for note in listed.notes():
            print(note, file=sys.stderr)
    share = range(world.rank, listed.images, world.size)
    is_damaged = np.zeros(listed.images, np.float32)
    turned = 0

    def work():
        nonlocal turned
        # Python decodes one image at a time for much of the work, however many threads ask.
        processes = max(1, min(decoding_threads(data) // world.size, len(share)))
        positions = iter(share)
        examine = partial(_examine, orientation=data.orientation)
        with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
            while chunk := list(islice(positions, _CHUNK)):
                paths = [listed.path(position) for position in chunk]
                for position, (problem, is_turned) in zip(chunk, pool.map(examine, paths, chunksize=16)):
                    turned += is_turned
                    if problem:
                        print(problem, file=sys.stderr, flush=True)
                        is_damaged[position] = 1
                yield len(chunk)

    follow(work(), what, 0, len(share))
    if turned:
        print(f"{listed.folder}: {describe_turned(turned)}", file=sys.stderr)
    return [os.fsdecode(listed.files[position]) for position in np.flatnonzero(sum_over_workers(is_damaged, world))]


def _examine(path, orientation):
    """Return what is wrong with an image file, None if nothing, and whether its EXIF orientation is not applied."""
    try:
        return None, decode_file(path, read_file(path), orientation)[1]
    except UserError as error:
        return str(error), False
