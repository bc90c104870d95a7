# SPDX-License-Identifier: Apache-2.0
"""Export a checkpoint: `python export.py --config config/NAME.yaml --checkpoint FILE --format mindir,onnx`."""

import sys

from src.cli import config_parser, parse_with_config
from src.errors import UserError, entry_point

WISHES = ("opset", "dtype", "quantize", "calibration_dir", "fold", "softmax", "argmax", "raw", "preprocess")


@entry_point
def main():
    parser = config_parser(
        "Write a checkpoint as OUTPUT_DIR/MODEL_SIZE_bBATCH[_WISHES].FORMAT, run each file, and compare it with the "
        "network."
    )
    _add_arguments(parser)
    arguments, config = parse_with_config(parser)
    if arguments.dynamic_batch and arguments.batch_size is not None:
        raise UserError("--batch_size and --dynamic_batch contradict each other; leave one of them out")
    batch_size = 1 if arguments.batch_size is None else arguments.batch_size

    # MindSpore takes seconds to load.
    from src.deploy.export import export_checkpoint
    from src.deploy.proof import WrongExport
    from src.deploy.running.key import read_key
    from src.device import setup_device
    from src.tasks import deployment_of

    setup_device(config.device)
    try:
        cards = export_checkpoint(
            config,
            arguments.checkpoint,
            arguments.format.split(","),
            None if arguments.dynamic_batch else batch_size,
            key=read_key(arguments.key),
            **{wish: getattr(arguments, wish) for wish in WISHES},
        )
    except WrongExport as error:
        sys.exit(f"error: {error}")
    for path, card in cards.items():
        size, proof = path.stat().st_size / 1e6, _proof(card, deployment_of(card).unit)
        print(f"{path}: {size:.1f} MB, {proof}; described in {path.name}.json")


def _add_arguments(parser):
    parser.add_argument("--checkpoint", required=True, metavar="FILE", help="best.ckpt or last.ckpt of a training")
    parser.add_argument(
        "--format", default="mindir,onnx", metavar="LIST", help="some of mindir, onnx, air; default mindir,onnx"
    )
    parser.add_argument("--batch_size", type=int, metavar="N", help="images a file takes at once; default 1")
    parser.add_argument("--dynamic_batch", action="store_true", help="ONNX that takes any number of images")
    parser.add_argument("--fold", action="store_true", default=True, help="norms and constants into weights; default")
    parser.add_argument("--no_fold", dest="fold", action="store_false", help="leave the network as it was trained")
    parser.add_argument("--softmax", action="store_true", help="of classifiers: give probabilities instead of logits")
    parser.add_argument("--argmax", action="store_true", help="of segmenters: give the class of each pixel instead")
    parser.add_argument(
        "--raw", action="store_true", help="of detectors: give the boxes and scores of all anchors, nothing selected"
    )
    parser.add_argument(
        "--preprocess", action="store_true", help="take pixels, uint8 NHWC of the right size, and normalise them"
    )
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16"], help="default float32")
    parser.add_argument("--opset", type=int, metavar="N", help="of ONNX: 11, 17 or 20; default 11, small numbers: 17")
    parser.add_argument("--quantize", default="", choices=["int8"], help="integers in an ONNX file's layers")
    parser.add_argument(
        "--calibration_dir", default="", metavar="FOLDER", help="images to choose the scales of int8 by"
    )
    parser.add_argument(
        "--key", metavar="KEY|@FILE", help="encrypt MindIR by a key of 16, 24 or 32 bytes; @FILE: what is in the file"
    )


def _proof(card, unit):
    if "int8" in card:
        accuracy = "{measure} {before:.2f} % in float32 and {after:.2f} % in int8 of {images} evaluation images"
        likeness = "the class of float32 for {agreement:.2f} % of {images} calibration images"
        return (accuracy if "before" in card["int8"] else likeness).format(**card["int8"])
    if card["max_difference"] is None:
        return "not run here"
    return f"within {card['max_difference']:.0e} {unit} of the network (allowed: {card['tolerance']:.0e})"


if __name__ == "__main__":
    main()
