# SPDX-License-Identifier: Apache-2.0
"""What is in images: `python infer.py --model FILE.onnx|FILE.mindir|FILE.ckpt --image FILE|FOLDER`."""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from src.crash import survive_crashes
from src.errors import UserError, entry_point

# Exit code: some images could not be read, all others are done.
UNREADABLE = 3
# Options that only some tasks have, see `src.training.deployment.Deployment.options`.
OF_TASKS = ("topk", "overlay", "threshold")


def parse_arguments():
    parser = argparse.ArgumentParser(
        description="Tell the class of images, or of their pixels, or what is where on them, by an exported model or a "
        f"checkpoint. Images that cannot be read are named at the end, and the exit code is {UNREADABLE} then."
    )
    parser.add_argument("--model", required=True, metavar="FILE", help="a .onnx, .mindir or .ckpt file")
    parser.add_argument("--image", required=True, metavar="FILE|FOLDER", help="an image, or a folder with images")
    parser.add_argument("--topk", type=int, metavar="K", help="of classifiers: labels for each image; default 5")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line instead of text")
    parser.add_argument(
        "--output",
        metavar="FILE|FOLDER",
        help="of classifiers: write a .jsonl or .csv file instead, a line for each image; of segmenters: a folder, for "
        "the class of each pixel of each image, a PNG file; of detectors: a .json file of results in COCO's format, or "
        "a folder, for pictures with boxes, masks and a legend",
    )
    parser.add_argument(
        "--overlay",
        action="store_true",
        help="of segmenters: in --output, also pictures of the classes, with a legend",
    )
    parser.add_argument(
        "--threshold", type=float, metavar="T", help="of detectors: least score of what is shown; default 0.3"
    )
    parser.add_argument("--batch_size", type=int, metavar="N", help="images at once; default: the file's own, or 8")
    parser.add_argument("--num_workers", type=int, metavar="N", help="threads that read images; default: all cores")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of an ONNX network, on CPU; default: all")
    parser.add_argument("--key", metavar="KEY|@FILE", help="of an encrypted .mindir, or the file that holds it")
    parser.add_argument("--config", metavar="FILE", help="of a .ckpt; default: the config.yaml beside it")
    parser.add_argument("--device_target", default="CPU", choices=["CPU", "GPU", "Ascend"], help="default CPU")
    arguments = parser.parse_args()
    for name in ("topk", "batch_size", "num_workers", "threads"):
        number = getattr(arguments, name)
        if number is not None and number < 1:
            raise UserError(f"--{name} is {number} but takes at least 1")
    if arguments.threshold is not None and not 0 <= arguments.threshold <= 1:
        raise UserError(f"--threshold is {arguments.threshold} but takes 0 to 1")
    is_onnx_on_cpu = arguments.model.endswith(".onnx") and arguments.device_target == "CPU"
    if arguments.threads and not is_onnx_on_cpu:
        raise UserError(
            "--threads is for ONNX on the CPU, and MindSpore has no such setting; leave it out, or give it cores: "
            f"taskset -c 0-{arguments.threads - 1} python infer.py ..."
        )
    return arguments


@entry_point
def main():
    arguments = parse_arguments()
    survive_crashes(f"{arguments.model}, or an image, has crashed the library that reads it; export again")

    # MindSpore takes seconds to load.
    from src.config import DeviceConfig
    from src.data.dataset import describe_turned
    from src.deploy.running.images import find_images, others_below
    from src.deploy.running.key import read_key
    from src.deploy.running.predict import open_predictor
    from src.device import setup_device

    images = find_images(arguments.image)
    if note := others_below(arguments.image):
        print(note, file=sys.stderr)
    # onnxruntime has devices of its own; MindSpore need not have them.
    if not arguments.model.endswith(".onnx"):
        setup_device(DeviceConfig(target=arguments.device_target))
    predictor = open_predictor(
        arguments.model,
        arguments.config,
        arguments.batch_size,
        device=arguments.device_target,
        key=read_key(arguments.key),
        threads=arguments.threads or 0,
    )
    deployment = predictor.deployment
    for name in OF_TASKS:
        if getattr(arguments, name) not in (None, False) and name not in deployment.options:
            raise UserError(f"--{name} is not for what {arguments.model} does; leave it out")
    batches = predictor.read(images, arguments.num_workers)
    is_watched = sys.stderr.isatty() and (arguments.output or not sys.stdout.isatty())
    total = sum(1 for _ in find_images(arguments.image)) if is_watched else None
    with deployment.open_results(Path(arguments.image), arguments) as write:
        answers = tqdm(predictor.answers(batches), total=total, unit="image", disable=not is_watched)
        for path, answer in answers:
            write(path, answer)
    if batches.turned:
        print(f"{arguments.image}: {describe_turned(batches.turned)}", file=sys.stderr)
    for problem in batches.unreadable:
        print("error:", " ".join(problem.split()), file=sys.stderr)
    if batches.unreadable:
        sys.exit(UNREADABLE)


if __name__ == "__main__":
    main()
