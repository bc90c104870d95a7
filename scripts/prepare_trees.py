# SPDX-License-Identifier: Apache-2.0
"""Make the aerial trees of PyPI's package deepforest a data set for detection: tiles, and boxes drawn by hand.

    python -m pip download --no-deps deepforest==2.1.0
    python scripts/prepare_trees.py --wheel deepforest-2.1.0-py3-none-any.whl --output_dir data/trees

The package is not installed; its pictures (21 MB) are read from its file.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.data.trees import write_trees
from src.errors import entry_point


@entry_point
def main():
    arguments = parse_arguments()
    for split, (tiles, trees, ignored) in write_trees(arguments.wheel, arguments.output_dir).items():
        print(f"{arguments.output_dir}: {split}: {tiles} tiles, {trees} trees, {ignored} cut ones to be ignored")


def parse_arguments():
    parser = argparse.ArgumentParser(description="Make deepforest's aerial trees a data set.", allow_abbrev=False)
    parser.add_argument("--wheel", required=True, metavar="FILE", help="deepforest-2.1.0-py3-none-any.whl")
    parser.add_argument("--output_dir", required=True, metavar="O", help="folder to make; then the --data_dir")
    return parser.parse_args()


if __name__ == "__main__":
    main()
