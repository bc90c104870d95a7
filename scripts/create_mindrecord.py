# SPDX-License-Identifier: Apache-2.0
"""Pack a folder of images into MindRecord files, which training and evaluation read like the folder.

    python scripts/create_mindrecord.py --data_dir imagenet --output_dir imagenet_mindrecord
    python scripts/create_mindrecord.py --output_dir imagenet_mindrecord --check

The images are kept as they are. A stopped run goes on where it was when it is started again.
"""

import argparse
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.cli import follow
from src.errors import UserError, entry_point


@entry_point
def main():
    arguments = parse_arguments()

    # MindSpore takes seconds to load.
    from src.data.class_names import FILE
    from src.data.packing import Packing, check
    from src.data.records import open_packed

    folders = [(Path(arguments.output_dir, split), split) for split in arguments.split or ("train", "val")]
    if arguments.check:
        for folder, split in folders:
            packed = open_packed(folder)
            follow(check(packed), f"checking {split}", 0, packed.images)
            print(f"{folder}: all {packed.images} images are as they were packed")
        return
    # Both are looked at before hours go into the first.
    packings = [Packing(Path(arguments.data_dir, split), folder, arguments.shard_size) for folder, split in folders]
    for (folder, split), packing in zip(folders, packings):
        for note in packing.notes:
            print(note, file=sys.stderr)
        follow(packing.run(), f"packing {split}", packing.packed, packing.images)
        print(f"{folder}: {packing.images} images in {len(open_packed(folder).shards)} shards, each read back")
    if Path(arguments.data_dir, FILE).exists():
        shutil.copyfile(Path(arguments.data_dir, FILE), Path(arguments.output_dir, FILE))


def parse_arguments():
    parser = argparse.ArgumentParser(description="Pack a folder of images into MindRecord files.", allow_abbrev=False)
    parser.add_argument("--data_dir", metavar="D", help="folder that holds train/CLASS/IMAGE and val/CLASS/IMAGE")
    parser.add_argument("--output_dir", required=True, metavar="O", help="folder for train and val in packed form")
    parser.add_argument("--split", action="append", metavar="NAME", help="folder to pack; default: train, then val")
    parser.add_argument(
        "--shard_size", type=int, metavar="N", help="images in a file; default 10000: 1.1 GB of ImageNet"
    )
    parser.add_argument("--check", action="store_true", help="pack nothing; compare every record with what was packed")
    arguments = parser.parse_args()
    if bool(arguments.data_dir) == arguments.check:
        raise UserError("give --data_dir to pack a folder, or --check to read a packed one; not both")
    if arguments.shard_size is not None and arguments.shard_size < 1:
        raise UserError(f"--shard_size is {arguments.shard_size} but takes at least 1")
    if arguments.data_dir and Path(arguments.data_dir).resolve() == Path(arguments.output_dir).resolve():
        raise UserError("--output_dir is --data_dir; give another folder, the images stay where they are")
    return arguments


if __name__ == "__main__":
    main()
