# SPDX-License-Identifier: Apache-2.0
"""Convert an exported ONNX file for MindSpore Lite and classify images with it.

    python3.7 -m pip install mindspore-lite==2.0.0 opencv-python-headless
    python3.7 scripts/lite_infer.py --model acmix_resnet26_32_b1.onnx IMAGE ...

A program by itself, to be copied: it needs MindSpore Lite's own Python with NumPy and nothing of this repository but
the ONNX file with the .json beside it. The converted file is X_lite.mindir beside X.onnx, made again when X.onnx is
newer. Images are read by OpenCV; a .npy file holds an image as the network takes it and needs no OpenCV.
"""

import argparse
import contextlib
import json
import os
import sys

import numpy as np


class UserError(Exception):
    """What the user can mend: one line that names the thing."""


def main():
    arguments = parse_arguments()
    card = read_card(arguments.model)
    mindir = converted(arguments.model, card)
    if not arguments.images:
        print(mindir)
        return
    model = LiteModel(mindir, arguments.threads)
    size = model.batch_size
    for start in range(0, len(arguments.images), size):
        paths = arguments.images[start : start + size]
        images = [prepare(path, card) for path in paths]
        batch = np.stack(images + images[:1] * (size - len(images)))
        for path, numbers in zip(paths, model.run(batch)):
            print(json.dumps({"image": path, "topk": best(numbers, card, arguments.topk)}, ensure_ascii=False))


def parse_arguments(words=None):
    parser = argparse.ArgumentParser(description="Classify images by an exported ONNX file in MindSpore Lite.")
    parser.add_argument("--model", required=True, metavar="X.onnx", help="an exported file, X.onnx.json beside it")
    parser.add_argument("--topk", type=int, default=5, metavar="K", help="labels to print for each image; default 5")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of the CPU; default 2")
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="an image or .npy file; none: only convert")
    arguments = parser.parse_args(words)
    for name in ("topk", "threads"):
        if getattr(arguments, name) < 1:
            raise UserError(f"--{name} is {getattr(arguments, name)} but takes at least 1")
    if not os.path.isfile(arguments.model):
        raise UserError(f"there is no model {arguments.model}")
    return arguments


def read_card(model):
    """Return the description of an exported file; `UserError` if it is missing or lacks something."""
    path = model + ".json"
    try:
        with open(path, encoding="utf-8") as file:
            card = json.load(file)
        spec = card["preprocessing"]
        _ = [card["input"][key] for key in ("name", "shape", "dtype")] + [card["output"]["name"], card["labels"]]
        _ = [spec[key] for key in ("image_size", "resize", "interpolation", "mean", "std", "in_channels")]
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); copy it too") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be used ({error!r}); export again") from error
    return card


def prepare(path, card):
    """Return an image as the network takes it: shorter side to `resize`, centre crop, normalised unless the graph does.

    float32 (C, S, S), or uint8 (S, S, C) for a graph that normalises; C is 3 as R, G, B, or 1.
    """
    spec = card["preprocessing"]
    # Lite makes the input of a float16 file float32.
    kind = "uint8" if card["input"]["dtype"] == "uint8" else "float32"
    if path.endswith(".npy"):
        return prepared(path, tuple(card["input"]["shape"][1:]), kind)
    try:
        import cv2
    except ImportError as error:
        raise UserError(f"image {path} needs opencv-python-headless; install it, or give a .npy file") from error
    try:
        encoded = np.fromfile(path, np.uint8)
    except OSError as error:
        raise UserError(f"cannot read image {path}: {error.strerror}") from error
    image = cv2.imdecode(encoded, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION) if encoded.size else None
    if image is None:
        raise UserError(f"image {path} is damaged, or of a type that OpenCV does not read")
    grey, side, resize = spec["in_channels"] == 1, spec["image_size"], spec["resize"]
    image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY if grey else cv2.COLOR_BGR2RGB)
    height, width = image.shape[:2]
    shorter = min(height, width)
    cubic = spec["interpolation"] == "bicubic"
    size = width * resize // shorter, height * resize // shorter
    image = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR)
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    image = image[top : top + side, left : left + side].reshape(side, side, -1)
    if kind == "uint8":
        return image
    mean, std = (255 * np.array(spec[key], np.float32) for key in ("mean", "std"))
    return ((image - mean) / std).transpose(2, 0, 1)


def prepared(path, shape, dtype):
    """Return the array of a .npy file, which has to be of this shape and dtype."""
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise UserError(f"cannot read image {path}: {error.strerror or error}") from error
    except (ValueError, EOFError) as error:
        raise UserError(f"image {path} is no NumPy array ({error})") from error
    if array.shape != shape or array.dtype != dtype:
        raise UserError(f"image {path} is {array.dtype} {array.shape} but the model takes {dtype} {shape}")
    return array


def best(numbers, card, topk):
    """Return the `topk` most probable classes of (K,) logits or probabilities, the first of equals first."""
    numbers = np.asarray(numbers, np.float64)
    if card["output"]["name"] != "probabilities":
        numbers = np.exp(numbers - numbers.max())
        numbers /= numbers.sum()
    order = np.argsort(-numbers, kind="stable")[:topk]
    return [{"label": card["labels"][k], "probability": float(numbers[k])} for k in order]


def converted(model, card):
    """Return the path of the model converted for the CPU, X_lite.mindir beside X.onnx; make it unless it is there."""
    target = os.path.splitext(model)[0] + "_lite"
    path = target + ".mindir"
    if os.path.exists(path) and os.path.getmtime(path) >= os.path.getmtime(model):
        return path
    lite = mindspore_lite()
    converter = lite.Converter()
    converter.save_type = lite.ModelType.MINDIR
    shape = card["input"]["shape"]
    if not isinstance(shape[0], int):
        # Lite wants to know every size; an image at a time is what suits any number of them.
        converter.input_shape = {card["input"]["name"]: [1, *shape[1:]]}
    try:
        with output_to_stderr():
            converter.convert(lite.FmkType.ONNX, model, target)
    except RuntimeError as error:
        raise UserError(f"MindSpore Lite cannot convert {model}: {error}") from error
    return path


@contextlib.contextmanager
def output_to_stderr():
    """What Lite's libraries print goes to standard error; results alone go to standard output."""
    sys.stdout.flush()
    output = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(output, 1)
        os.close(output)


class LiteModel:
    """A converted file on the CPU.

    Attributes:
        batch_size (int): images that it takes at once.
    """

    def __init__(self, path, threads):
        lite = mindspore_lite()
        context = lite.Context()
        context.target = ["cpu"]
        context.cpu.thread_num = threads
        self._model = lite.Model()
        try:
            self._model.build_from_file(path, lite.ModelType.MINDIR, context)
        except RuntimeError as error:
            raise UserError(f"MindSpore Lite cannot use {path}: {error}; delete it, to be converted again") from error
        self._inputs = self._model.get_inputs()
        self.batch_size = self._inputs[0].shape[0]

    def run(self, images):
        """(B, ...) as the file takes it -> (B, K)."""
        self._inputs[0].set_data_from_numpy(np.ascontiguousarray(images))
        return self._model.predict(self._inputs)[0].get_data_to_numpy().copy()


def mindspore_lite():
    try:
        import mindspore_lite
    except ImportError as error:
        raise UserError(
            f"this Python ({sys.executable}) has no MindSpore Lite: pip install mindspore-lite==2.0.0, with Python 3.7"
        ) from error
    return mindspore_lite


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
