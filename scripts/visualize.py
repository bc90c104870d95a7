# SPDX-License-Identifier: Apache-2.0
"""Draw what a run learned: `python scripts/visualize.py paths|curves|shifts|attention ... --output FILE.png`."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.errors import UserError, entry_point


@entry_point
def main():
    arguments = _parser().parse_args()
    if Path(arguments.output).suffix != ".png":
        raise UserError(f"--output {arguments.output} takes a name that ends in .png")
    arguments.draw(arguments)
    print(f"wrote {arguments.output}")


def _parser():
    parser = argparse.ArgumentParser(description="Draw what a run learned.")
    commands = parser.add_subparsers(required=True, metavar="FIGURE")

    def figure(name, draw, text):
        command = commands.add_parser(name, help=text, description=f"Draw {text}.")
        command.add_argument("--output", default=f"{name}.png", metavar="FILE", help="picture; default %(default)s")
        command.set_defaults(draw=draw)
        return command

    paths = figure("paths", _paths, "log|alpha / beta| over depth: which layer prefers which path")
    curves = figure("curves", _curves, "loss and accuracy of several runs together")
    for command in (paths, curves):
        command.add_argument("runs", nargs="+", metavar="RUN", help="output folder of a training")
    shifts = figure("shifts", _shifts, "the shift kernels before and after training")
    attention = figure("attention", _attention, "what a query attends, over a picture")
    for command in (shifts, attention):
        command.add_argument("--checkpoint", required=True, metavar="FILE", help="best.ckpt or last.ckpt of a training")
        command.add_argument("--layers", default="", metavar="A,B", help="names of layers; default: some of all depths")
    attention.add_argument("--image", required=True, metavar="FILE", help="picture to look at")
    attention.add_argument(
        "--query", default="0.5,0.5", metavar="Y,X", help="place of the query, 0,0 top left, 1,1 bottom right"
    )
    return parser


def _paths(arguments):
    from src.figures.paths import plot_paths

    plot_paths(_metrics(arguments.runs), arguments.output)


def _curves(arguments):
    from src.figures.runs import plot_runs

    plot_runs(_metrics(arguments.runs), arguments.output)


def _shifts(arguments):
    from src.figures.shifts import plot_shifts

    plot_shifts(arguments.checkpoint, arguments.output, _names(arguments.layers))


def _attention(arguments):
    place, checkpoint = _place(arguments.query), Path(arguments.checkpoint)

    # MindSpore takes seconds to load.
    from src.config import load_config
    from src.data.transforms import load_image, preprocessing
    from src.figures.attention import plot_attention
    from src.training.checkpoint import load_weights
    from src.training.network import build_network

    if not checkpoint.with_name("config.yaml").is_file():
        raise UserError(f"there is no {checkpoint.with_name('config.yaml')}; put the one of its training there")
    config = load_config(checkpoint.with_name("config.yaml"))
    spec = preprocessing(config.data, config.model.image_size, config.model.in_channels)
    image = load_image(arguments.image, spec)
    network = build_network(config.model)
    load_weights(network, checkpoint)
    plot_attention(network, image, spec, place, arguments.output, _names(arguments.layers))


def _metrics(folders):
    """Return the metrics file of each run by the name of its folder."""
    runs = {}
    for folder in map(Path, folders):
        if not (folder / "metrics.jsonl").is_file():
            raise UserError(f"there is no {folder / 'metrics.jsonl'}; give the output folder of a training")
        runs[folder.name if folder.name not in runs else str(folder)] = folder / "metrics.jsonl"
    return runs


def _names(layers):
    return [name for name in layers.split(",") if name]


def _place(text):
    try:
        y, x = map(float, text.split(","))
    except ValueError:
        y = x = -1.0
    if not (0 <= y <= 1 and 0 <= x <= 1):
        raise UserError(f"--query {text} takes two numbers from 0 to 1: how far down, and how far to the right")
    return y, x


if __name__ == "__main__":
    main()
