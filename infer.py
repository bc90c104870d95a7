# SPDX-License-Identifier: Apache-2.0
"""Classify images: `python infer.py --model FILE.onnx|FILE.mindir|FILE.ckpt --image FILE|FOLDER`."""

import argparse
import json

from src.errors import UserError, entry_point


@entry_point
def main():
    parser = argparse.ArgumentParser(description="Classify images by an exported model or a checkpoint.")
    parser.add_argument("--model", required=True, metavar="FILE", help="a .onnx, .mindir or .ckpt file")
    parser.add_argument("--image", required=True, metavar="FILE|FOLDER", help="an image, or a folder with images")
    parser.add_argument("--topk", type=int, default=5, metavar="K", help="labels to print for each image; default 5")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line instead of a table")
    parser.add_argument("--config", metavar="FILE", help="of a .ckpt; default: the config.yaml beside it")
    parser.add_argument("--device_target", default="CPU", choices=["CPU", "GPU", "Ascend"], help="default CPU")
    arguments = parser.parse_args()
    if arguments.topk < 1:
        raise UserError(f"--topk is {arguments.topk} but takes at least 1")

    # MindSpore takes seconds to load.
    from src.config import DeviceConfig
    from src.deploy.classify import find_images, open_classifier
    from src.device import setup_device

    images = find_images(arguments.image)
    # onnxruntime has devices of its own; MindSpore need not have them.
    if not arguments.model.endswith(".onnx"):
        setup_device(DeviceConfig(target=arguments.device_target))
    classifier = open_classifier(arguments.model, arguments.config, arguments.device_target)
    show = _json_line if arguments.json else _table_rows(images)
    for path, best in classifier.classify(images, arguments.topk):
        print(show(path, best), flush=True)


def _json_line(path, best):
    topk = [{"label": label, "probability": probability} for label, probability in best]
    return json.dumps({"image": str(path), "topk": topk}, ensure_ascii=False)


def _table_rows(images):
    """Print the head of the table and return what formats the rows of an image."""
    wide = max(map(len, map(str, ["image", *images])))
    print(f"{'image':{wide}}  probability  label")

    def rows(path, best):
        lines = [f"{100 * probability:9.2f} %  {label}" for label, probability in best]
        return f"{path!s:{wide}}  " + f"\n{'':{wide}}  ".join(lines)

    return rows


if __name__ == "__main__":
    main()
