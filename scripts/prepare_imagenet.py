# SPDX-License-Identifier: Apache-2.0
"""Make ImageNet-1k as it is handed out a folder for --data_dir: links to its images, sorted into their classes.

    python scripts/prepare_imagenet.py --train_dir train --val_dir val --devkit_dir ILSVRC2012_devkit_t12 \
        --output_dir data/imagenet

Takes the unpacked archives: train/ with a folder for each class, the flat val/ and the development kit. Nothing is
copied; run again, it mends what is missing. The names of the classes go into class_names.txt.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.cli import follow
from src.errors import entry_point


@entry_point
def main():
    arguments = parse_arguments()

    # MindSpore takes seconds to load.
    from src.data.imagenet import count_train_images, link_imagenet, read_development_kit

    kit = read_development_kit(arguments.devkit_dir, arguments.classes)
    classes, val_images = len(kit.names), len(kit.val_classes)
    work = link_imagenet(kit, arguments.train_dir, arguments.val_dir, arguments.output_dir)
    follow(work, "linking", 0, classes + val_images)
    counts = count_train_images(kit, arguments.output_dir)
    for name, (images, expected) in counts.items():
        if images != expected:
            print(f"note: {name} has {images} training images, not {expected} as the development kit says")
    print(
        f"{arguments.output_dir}: {classes} classes, {sum(images for images, _ in counts.values())} training images, "
        f"{val_images} validation images, {val_images // classes} of each class"
    )


def parse_arguments():
    parser = argparse.ArgumentParser(description="Link ImageNet-1k into class folders.", allow_abbrev=False)
    parser.add_argument("--train_dir", required=True, metavar="D", help="folder with a folder of images for each class")
    parser.add_argument("--val_dir", required=True, metavar="D", help="folder with ILSVRC2012_val_00000001.JPEG ...")
    parser.add_argument("--devkit_dir", required=True, metavar="D", help="the development kit, ILSVRC2012_devkit_t12")
    parser.add_argument("--output_dir", required=True, metavar="O", help="folder to make; then the --data_dir")
    parser.add_argument(
        "--classes", type=int, default=1000, metavar="N", help="of a subset of ImageNet: its classes; default 1000"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
