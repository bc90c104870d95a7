# SPDX-License-Identifier: Apache-2.0
"""The description beside an exported file: `X.onnx.json` says what `X.onnx` takes and gives."""

import hashlib
import json
from pathlib import Path

from src.data.class_names import name_classes
from src.data.image_folder import check_image_folder
from src.data.transforms import eval_transform
from src.errors import UserError
from src.training.atomic import replacing

# Names of what goes in and comes out.
INPUT, LOGITS, PROBABILITIES = "image", "logits", "probabilities"
# In the place of the number of images, where a file takes any.
BATCH = "batch"
# Of the input: what the numbers are, and the order of the axes.
_KINDS = [("float32", "NCHW"), ("float16", "NCHW"), ("uint8", "NHWC")]
_KEYS = {"sha256": str, "input": dict, "output": dict, "preprocessing": dict, "labels": list}


def card_path(model):
    """Return where the description of an exported file lies."""
    return Path(f"{model}.json")


def sha256(path):
    """Return the SHA-256 of a file as hexadecimal text; `UserError` if it cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"cannot read model {path}: {error.strerror}") from error


def class_labels(config, meta):
    """Return the class names: those the training wrote into its checkpoint, else the folders of the evaluation images.

    Where there are neither, the numbers of the classes. The names of `class_names.txt` take the place of folders.

    Args:
        config (Config): the experiment.
        meta (dict): of its checkpoint.

    Raises:
        UserError: the folder of the evaluation images has another number of classes.
    """
    data = config.data
    if "classes" in meta:
        return name_classes(data.data_dir, meta["classes"]) if data.data_dir else meta["classes"]
    if data.data_dir and Path(data.data_dir, data.val_split).is_dir():
        return check_image_folder(data, config.model.num_classes, ("val",))
    return [str(number) for number in range(config.model.num_classes)]


def write_card(model, description):
    """Write the description of the exported file `model` beside it; its checksum is added.

    Args:
        description (dict): input, output, preprocessing (what `src.data.preprocessing` returns), labels, and what else
            is worth knowing of the file; JSON values.

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
    wrong = _wrong(card)
    if wrong:
        raise UserError(f"{path}: {wrong}; mend it, or export again")
    if card["sha256"] != checksum:
        raise UserError(
            f"model {model} is not the file that {path} describes but a damaged, incomplete or other one; "
            "copy both again, or export again"
        )
    return card


def _wrong(card):
    """Say what is wrong with a description; "" if nothing."""
    if not isinstance(card, dict):
        return "holds no JSON object"
    for key, kind in _KEYS.items():
        if not isinstance(card.get(key), kind):
            return f"{key} is missing or no {kind.__name__}"
    spec = card["preprocessing"]
    try:
        if not all(0 <= mean <= 1 and 1e-4 <= std <= 1 for mean, std in zip(spec["mean"], spec["std"])):
            raise ValueError("mean takes numbers from 0 to 1, std from 1e-4 to 1")
        eval_transform(**spec)
    except (KeyError, TypeError, ValueError) as error:
        return f"preprocessing cannot be used ({error})"
    if len(spec["mean"]) != spec["in_channels"]:
        return f"preprocessing.mean has {len(spec['mean'])} numbers for {spec['in_channels']} channels"
    images, results = card["input"].get("shape"), card["output"].get("shape")
    kind = card["input"].get("dtype"), card["input"].get("layout")
    if kind not in _KINDS:
        return f"input is {kind[0]} {kind[1]} but images are float32 or float16 NCHW, or uint8 NHWC"
    channels, size = spec["in_channels"], spec["image_size"]
    image = [channels, size, size] if kind[1] == "NCHW" else [size, size, channels]
    if not isinstance(images, list) or images[1:] != image or not _is_batch(images[0]):
        return f"input.shape is {images} but preprocessing makes images of {image}"
    if results != [images[0], len(card["labels"])]:
        return f"output.shape is {results} but there are {images[0]} images and {len(card['labels'])} labels"
    if not all(isinstance(label, str) for label in card["labels"]):
        return "labels are not all text"
    if card["output"].get("name", LOGITS) not in (None, LOGITS, PROBABILITIES):
        return f"output.name is {card['output']['name']} but takes {LOGITS} or {PROBABILITIES}"
    return ""


def _is_batch(number):
    return number == BATCH or (type(number) is int and number > 0)
