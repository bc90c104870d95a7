# SPDX-License-Identifier: Apache-2.0
"""Export a checkpoint: `python export.py --config config/NAME.yaml --checkpoint FILE --format mindir,onnx`."""

import sys

from src.cli import config_parser, parse_with_config
from src.errors import entry_point


@entry_point
def main():
    parser = config_parser(
        "Write a checkpoint as OUTPUT_DIR/MODEL_SIZE_bBATCH.FORMAT, run each file, and compare it with the network."
    )
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="best.ckpt or last.ckpt of a training")
    parser.add_argument(
        "--format", default="mindir,onnx", metavar="LIST", help="some of mindir, onnx, air; default mindir,onnx"
    )
    parser.add_argument("--batch_size", type=int, default=1, metavar="N", help="images a file takes at once; default 1")
    arguments, config = parse_with_config(parser)

    # MindSpore takes seconds to load, and src.device has to be the first to load it.
    from src.deploy.export import WrongExport, export_checkpoint
    from src.device import setup_device

    setup_device(config.device)
    try:
        files = export_checkpoint(config, arguments.checkpoint, arguments.format.split(","), arguments.batch_size)
    except WrongExport as error:
        sys.exit(f"error: {error}")
    for path, difference in files.items():
        proof = "not run here" if difference is None else f"within {difference:.0e} of the network's largest logit"
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {proof}; described in {path.name}.json")


if __name__ == "__main__":
    main()
