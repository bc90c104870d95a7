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
    except ValueError as error:
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
        eval_transform(**spec)
    except (KeyError, TypeError, ValueError) as error:
        return f"preprocessing cannot be used ({error})"
    if len(spec["mean"]) != spec["in_channels"]:
        return f"preprocessing.mean has {len(spec['mean'])} numbers for {spec['in_channels']} channels"
    images, logits = card["input"].get("shape"), card["output"].get("shape")
    image = [spec["in_channels"], spec["image_size"], spec["image_size"]]
    if not isinstance(images, list) or images[1:] != image:
        return f"input.shape is {images} but preprocessing makes images of {image}"
    if logits != [images[0], len(card["labels"])]:
        return f"output.shape is {logits} but there are {images[0]} images and {len(card['labels'])} labels"
    return ""
