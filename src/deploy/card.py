# SPDX-License-Identifier: Apache-2.0
"""The description beside an exported file: `X.onnx.json` says what `X.onnx` takes and gives."""

import hashlib
import json
from pathlib import Path

from src.errors import UserError
from src.image_size import sides
from src.tasks import deployment_of
from src.training.atomic import replacing
from src.training.deployment import results_of

# Name of what goes in.
INPUT = "image"
# In the place of the number of images, where a file takes any.
BATCH = "batch"
# Of the input: what the numbers are, and the order of the axes.
_KINDS = [("float32", "NCHW"), ("float16", "NCHW"), ("uint8", "NHWC")]
_KEYS = {"sha256": str, "input": dict, "output": (dict, list), "preprocessing": dict, "labels": list}


def card_path(model):
    """Return where the description of an exported file lies."""
    return Path(f"{model}.json")


def sha256(path):
    """Return the SHA-256 of a file as hexadecimal text; `UserError` if it cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"cannot read model {path}: {error.strerror}") from error


def write_card(model, description):
    """Write the description of the exported file `model` beside it; its checksum is added.

    Args:
        description (dict): input, output, what the `Deployment` of its task needs, and what else is worth knowing of
            the file; JSON values.

    Raises:
        UserError: it cannot be written.
    """
    text = json.dumps({**description, "sha256": sha256(model)}, indent=2, ensure_ascii=False)
    with replacing(card_path(model)) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_card(model):
    """Return the description of the exported file `model`, checked, also that the two belong together.

    Labels may have been edited by hand. MindSpore can crash on a file that is no MindIR, so the checksum has to be
    right before anything loads the file.

    Raises:
        UserError: a file is missing or unreadable, the description lacks something or contradicts itself, or the model
            is not the one it describes.
    """
    path, checksum = card_path(model), sha256(model)
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error.strerror}), which says what {model.name} takes and gives; copy it too, or "
            "export again"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); export again") from error
    card = _as_written_now(card)
    wrong = _wrong(card)
    if wrong:
        raise UserError(f"{path}: {wrong}; mend it, or export again")
    if card["sha256"] != checksum:
        raise UserError(
            f"model {model} is not the file that {path} describes but a damaged, incomplete or other one; "
            "copy both again, or export again"
        )
    return card


def _as_written_now(card):
    """Return a description of an earlier export as exports write it now; what is none stays as it is."""
    spec = card.get("preprocessing") if isinstance(card, dict) else None
    if isinstance(spec, dict):
        if type(spec.get("image_size")) is int:
            spec["image_size"] = [spec["image_size"]] * 2
        spec.setdefault("orientation", "ignore")
    return card


def _wrong(card):
    """Say what is wrong with a description; "" if nothing."""
    if not isinstance(card, dict):
        return "holds no JSON object"
    for key, kind in _KEYS.items():
        if not isinstance(card.get(key), kind):
            return f"{key} is missing or no {getattr(kind, '__name__', 'dict, or list of them')}"
    if not all(isinstance(result, dict) for result in results_of(card)):
        return "output is no dict, or list of them"
    if not all(isinstance(label, str) for label in card["labels"]):
        return "labels are not all text"
    try:
        deployment = deployment_of(card)
    except (KeyError, TypeError):
        return f"task is {card['task']}, which is none"
    spec = card["preprocessing"]
    try:
        if not all(0 <= mean <= 1 and 1e-4 <= std <= 1 for mean, std in zip(spec["mean"], spec["std"])):
            raise ValueError("mean takes numbers from 0 to 1, std from 1e-4 to 1")
        sides(spec["image_size"])
        if spec["orientation"] not in ("ignore", "apply"):
            raise ValueError("orientation takes ignore or apply")
        if not len(spec["mean"]) == len(spec["std"]) == spec["in_channels"]:
            count = len(spec["mean"])
            return f"preprocessing.mean has {count} numbers for {spec['in_channels']} channels"
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        return f"preprocessing cannot be used ({error})"
    return deployment.wrong() or _wrong_ends(card, deployment)


def _wrong_ends(card, deployment):
    """Say what is wrong with what a file is said to take and give; "" if nothing."""
    spec, images = card["preprocessing"], card["input"].get("shape")
    kind = card["input"].get("dtype"), card["input"].get("layout")
    if kind not in _KINDS:
        return f"input is {kind[0]} {kind[1]} but images are float32 or float16 NCHW, or uint8 NHWC"
    channels, size = spec["in_channels"], spec["image_size"]
    image = [channels, *size] if kind[1] == "NCHW" else [*size, channels]
    if not isinstance(images, list) or images[1:] != image or not _is_batch(images[0]):
        return f"input.shape is {images} but preprocessing makes images of {image}"
    form, given = deployment.form, results_of(card)
    if not given or form is None:
        names = ", ".join(str(result.get("name")) for result in given)
        return f"output.name is {names} but takes {' or '.join(deployment.outputs)}"
    for result, shape in zip(given, deployment.results(form, images[0]).values()):
        if result.get("shape") != shape:
            count = f"{images[0]} images and {len(card['labels'])} labels"
            return f"output.shape is {result.get('shape')} but there are {count}, which is {shape}"
    return ""


def _is_batch(number):
    return number == BATCH or (type(number) is int and number > 0)
