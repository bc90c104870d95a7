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
        if card.get("task", "classification") != "classification":
            raise UserError(f"{path} is of task {card['task']}, and this classifies; give a classifier")
        spec = card["preprocessing"]
        _ = [card["input"][key] for key in ("name", "shape", "dtype")] + [card["output"]["name"], card["labels"]]
        _ = [spec[key] for key in ("image_size", "resize", "interpolation", "mean", "std", "in_channels")]
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); copy it too") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be used ({error!r}); export again") from error
    return card


def prepare(path, card):
    """Return an image as the network takes it: scaled, centre crop, normalised unless the graph does that.

    float32 (C, H, W), or uint8 (H, W, C) for a graph that normalises; C is 3 as R, G, B, or 1.
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
    encoded = read_encoded(path)
    keep = 0 if spec.get("orientation") == "apply" else cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR | keep)
    except cv2.error:
        image = None
    if image is None:
        raise UserError(f"image {path} is damaged, or of a type that OpenCV does not read")
    image = covering_crop(image, spec)
    image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY if spec["in_channels"] == 1 else cv2.COLOR_BGR2RGB)
    image = image.reshape(*image.shape[:2], -1)
    if kind == "uint8":
        return image
    mean, std = (255 * np.array(spec[key], np.float32) for key in ("mean", "std"))
    return ((image - mean) / std).transpose(2, 0, 1)


def read_encoded(path):
    """Return the bytes of an image file of a type, and of 8 bits a channel, that the training too reads."""
    try:
        with open(path, "rb") as file:
            encoded = file.read()
    except OSError as error:
        raise UserError(f"cannot read image {path}: {error.strerror}") from error
    is_webp = encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP"
    if not (encoded.startswith((b"\xff\xd8\xff", b"\x89PNG", b"BM")) or is_webp):
        raise UserError(f"image {path} is not a JPEG, PNG, BMP or WebP image; convert it")
    if encoded.startswith(b"\x89PNG") and encoded[24:25] == b"\x10":
        raise UserError(
            f"image {path} has 16 bits a channel, of which 8 would be lost; convert it to 8 bits by the range of its "
            "values, or the like"
        )
    return encoded


def covering_crop(image, spec):
    """(h, w, C) -> (H, W, C): scaled to cover H x W enlarged to a shorter side of `resize`, and the centre of it."""
    size, (height, width) = spec["image_size"], image.shape[:2]
    size = [size, size] if isinstance(size, int) else size
    least_height, least_width = (round(side * spec["resize"] / min(size)) for side in size)
    if width * least_height >= height * least_width:
        scaled = least_height, width * least_height // height
    else:
        scaled = height * least_width // width, least_width
    # As Pillow: the width first, but where the height loses more than twice as much.
    for axis in (0, 1) if height - scaled[0] > max(2 * (width - scaled[1]), 0) else (1, 0):
        start, cubic = (scaled[axis] - size[axis]) // 2, spec["interpolation"] == "bicubic"
        image = resized(image.swapaxes(0, axis), scaled[axis], start, size[axis], cubic).swapaxes(0, axis)
    return np.ascontiguousarray(image)


def resized(image, length, start, count, cubic):
    """uint8 (N, ...) -> (count, ...): rows from `start` on of the `length` that Pillow's `Image.resize` would make."""
    scale = len(image) / length
    # A kernel as wide as what becomes a pixel: OpenCV's own resize skips rows.
    stretch = max(scale, 1)
    reach = stretch * (2 if cubic else 1)
    rows = []
    for centre in (np.arange(max(start, 0), min(start + count, length)) + 0.5) * scale:
        first, last = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), len(image))
        x = np.abs(np.arange(first, last) + 0.5 - centre) / stretch
        near, far = (1.5 * x - 2.5) * x * x + 1, ((2.5 - 0.5 * x) * x - 4) * x + 2
        weights = np.where(x < 1, near, far) if cubic else 1 - x
        # Pillow's weights have 22 bits behind the point: so that halves are rounded to the same side.
        weights = np.rint(weights / weights.sum() * 2**22) / 2**22
        rows.append(np.tensordot(weights, image[first:last], 1))
    rows = np.clip(np.array(rows) + 0.5, 0, 255).astype(np.uint8)
    # Black, where a smaller image has no rows.
    above = max(-start, 0)
    return np.pad(rows, [(above, count - above - len(rows)), *[(0, 0)] * (rows.ndim - 1)])


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
