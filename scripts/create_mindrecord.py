# SPDX-License-Identifier: Apache-2.0
"""Pack folders of images, or of images and masks, into MindRecord files, which training and evaluation read like them.

    python scripts/create_mindrecord.py --data_dir imagenet --output_dir imagenet_mindrecord
    python scripts/create_mindrecord.py --config config/fpn_pvt_tiny_ade20k.yaml --data_dir ade20k --output_dir packed
    python scripts/create_mindrecord.py --output_dir imagenet_mindrecord --check

The files are kept as they are. A stopped run goes on where it was when it is started again.
"""

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.cli import Parser, follow
from src.config import Config, DataConfig, ModelConfig, load_config
from src.errors import UserError, entry_point


@entry_point
def main():
    arguments, config = parse_arguments()

    # MindSpore takes seconds to load.
    from src.data.packing import Packing, check
    from src.data.records import open_records
    from src.tasks import create_task

    data = config.data
    folders = [(Path(arguments.output_dir, s), s) for s in arguments.split or (data.train_split, data.val_split)]
    if arguments.check:
        for folder, split in folders:
            packed = open_records(folder)
            follow(check(packed), f"checking {split}", 0, packed.images)
            print(f"{folder}: all {packed.images} images are as they were packed")
        return
    task = create_task(config)
    # All are looked at before hours go into the first.
    listings = [task.list_files(split) for _, split in folders]
    packings = [Packing(listed, folder, arguments.shard_size) for listed, (folder, _) in zip(listings, folders)]
    beside = task.files_beside()
    for (folder, split), listed, packing in zip(folders, listings, packings):
        for note in listed.notes():
            print(note, file=sys.stderr)
        follow(packing.run(), f"packing {split}", packing.packed, packing.images)
        print(f"{folder}: {packing.images} images in {len(open_records(folder).shards)} shards, each read back")
    for name in beside:
        source, copy = Path(data.data_dir, name), Path(arguments.output_dir, name)
        if source != copy:  # it is, where `name` is an absolute path
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)


def parse_arguments():
    parser = Parser(description="Pack folders of images into MindRecord files.", allow_abbrev=False)
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="YAML file of the experiment, which says what its data are; default: images in class folders; any of its "
        "keys is an option too, --section.key VALUE",
    )
    parser.add_argument(
        "--data_dir", metavar="D", help="folder that holds train/CLASS/IMAGE and val/CLASS/IMAGE, or what --config says"
    )
    parser.add_argument("--output_dir", required=True, metavar="O", help="folder for train and val in packed form")
    parser.add_argument("--split", action="append", metavar="NAME", help="folder to pack; default: train, then val")
    parser.add_argument(
        "--shard_size", type=int, metavar="N", help="images in a file; default 10000: 1.1 GB of ImageNet"
    )
    parser.add_argument("--check", action="store_true", help="pack nothing; compare every record with what was packed")
    arguments, overrides = parser.parse_known_args()
    if arguments.check and arguments.data_dir:
        raise UserError("give --data_dir to pack a folder, or --check to read a packed one; not both")
    if arguments.config:
        of_folder = ["--data_dir", arguments.data_dir] if arguments.data_dir else []
        config = load_config(arguments.config, [*overrides, *of_folder])
    elif overrides:
        raise UserError(f"unknown argument {overrides[0]}; keys of a configuration need --config")
    else:
        config = Config(model=ModelConfig(""), data=DataConfig(data_dir=arguments.data_dir or ""))
    data_dir = config.data.data_dir
    if not arguments.check and not data_dir:
        raise UserError("give --data_dir to pack a folder, or --check to read a packed one")
    if arguments.shard_size is not None and arguments.shard_size < 1:
        raise UserError(f"--shard_size is {arguments.shard_size} but takes at least 1")
    if not arguments.check and Path(data_dir).resolve() == Path(arguments.output_dir).resolve():
        raise UserError("--output_dir is --data_dir; give another folder, the images stay where they are")
    return arguments, config


if __name__ == "__main__":
    main()
