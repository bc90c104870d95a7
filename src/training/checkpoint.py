# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: MindSpore's own `.ckpt` files, closed by a checksum, written whole or not at all, read strictly.

A file holds the network under its parameter names, and `meta`, a dict as JSON; a resumable one also the optimiser's
state under `optimizer.<name>` and averaged weights under `ema.<name>`. MindSpore reads a file cut at the border of two
tensors without complaint, so the checksum MindSpore can append (`crc_check`) is demanded of every file.
"""

import binascii
import json
from pathlib import Path

import mindspore as ms

from src.errors import UserError
from src.models.image_size import resizers
from src.ops.draws import random_state
from src.training.atomic import replacing
from src.training.finite import check_finite
from src.training.memory import have_free


class DamagedCheckpoint(UserError):
    """A file that was a checkpoint once, or half of one: an older one may serve."""


_OPTIMIZER = "optimizer."
_META = "meta"
# What MindSpore appends: this mark, then the CRC-32 of all bytes before it as a big-endian number of 10 bytes.
_MARK, _NUMBER_BYTES = b"crc_num", 10
# Parameters of an optimiser which hold settings, that the configuration of the resumed run decides, or copies.
_NO_PROGRESS = ("learning_rate", "momentum", "last_weights")
_NOT_OF_THE_NETWORK = (_OPTIMIZER, "ema.")


def save_weights(path, network, meta):
    """Write the parameters of `network` (moving averages too) and `meta`, a dict of JSON values, to `path`.

    Raises:
        UserError: the file cannot be written, or a weight is no number.
    """
    _write(path, _by_name(network), meta)


def save_training_state(path, network, optimizer, meta, ema=None, make_room=lambda: None):
    """Write what a later run needs to go on: `network`, moments and step count of `optimizer`, `meta`, and `ema`.

    `ema` is None without averages; `make_room` is called when the new file is complete and about to take the place of
    an older one.

    Raises:
        UserError: the file cannot be written.
    """
    _write(path, _training_state(network, optimizer, ema), meta, make_room)


def read_checkpoint(path):
    """Return `(parameters, meta)` of a checkpoint: a dict of `Parameter` by name, and a dict.

    Raises:
        UserError: there is no such file, or it is damaged, incomplete or no checkpoint, has a NaN, or does
            not fit into memory.
    """
    path = Path(path)
    if not path.is_file() or path.suffix != ".ckpt":
        raise UserError(f"no checkpoint {path}; give the path of a .ckpt file")
    _check_sum(path)
    # MindSpore holds the bytes and what they say at once.
    have_free(3 * path.stat().st_size, f"checkpoint {path}")
    try:
        parameters = ms.load_checkpoint(str(path))
        meta = dict(json.loads(parameters.pop(_META, "{}")))
    except Exception as error:  # whoever made the checksum can have put anything before it
        raise DamagedCheckpoint(f"checkpoint {path} is no checkpoint, whole as it is; use another one") from error
    # MindSpore's ReLU on CPU hides a NaN.
    check_finite(parameters, f"checkpoint {path}")
    return parameters, meta


def load_weights(network, path):
    """Fill `network` from a checkpoint of either kind and return its `meta`.

    What depends on the image size or the window is interpolated where the file is of another one.

    Raises:
        UserError: the file is unreadable (see `read_checkpoint`), or its parameters are not those of `network`.
    """
    parameters, meta = read_checkpoint(path)
    weights = {name: value for name, value in parameters.items() if not name.startswith(_NOT_OF_THE_NETWORK)}
    image_size = meta.get("model", {}).get("image_size")
    for name, resize in resizers(network).items():
        if name in weights:
            try:
                table = resize(weights[name].asnumpy(), image_size)
            except ValueError as error:
                raise UserError(f"checkpoint {path} does not fit this model: {name}: {error}") from error
            weights[name] = ms.Parameter(ms.Tensor(table))
    _fill(_by_name(network), weights, path, meta)
    return meta


def load_training_state(network, optimizer, path, ema=None, check=lambda meta: None):
    """Fill `network`, `optimizer` and `ema` from what `save_training_state` wrote and return its `meta`.

    Args:
        check: is called with `meta` first, to refuse the file by what it says of itself.

    Raises:
        UserError: as `load_weights`; or the file holds weights only.
    """
    parameters, meta = read_checkpoint(path)
    if not any(name.startswith(_OPTIMIZER) for name in parameters):
        raise UserError(f"checkpoint {path} holds weights only, nothing to resume from; give the last.ckpt of a run")
    check(meta)
    _fill(_training_state(network, optimizer, ema), parameters, path, meta)
    return meta


def _by_name(network):
    # `Parameter.name`, not `parameters_and_names()`: mixed precision wraps cells, which changes the latter.
    counters = random_state(network)
    return {parameter.name: parameter for parameter in network.get_parameters() if parameter.name not in counters}


def _training_state(network, optimizer, ema):
    averages = {average.name: average for average in ema.averages} if ema else {}
    return {**_by_name(network), **averages, **_optimizer_state(optimizer)}


def _optimizer_state(optimizer):
    weights = {id(parameter) for parameter in optimizer.parameters}
    return {
        _OPTIMIZER + parameter.name: parameter
        for parameter in optimizer.get_parameters()
        if id(parameter) not in weights and not parameter.name.startswith(_NO_PROGRESS)
    }


def _write(path, parameters, meta, make_room=lambda: None):
    mend = "it was not written, and the checkpoints before it are kept; lower --optimizer.lr"
    check_finite(parameters, f"checkpoint {path}", mend)
    records = [{"name": name, "data": parameter} for name, parameter in parameters.items()]
    with replacing(path) as temporary:
        ms.save_checkpoint(records, str(temporary), append_dict={_META: json.dumps(meta)}, crc_check=True)
        # MindSpore makes the file readable by its owner only.
        temporary.chmod(0o644)
        make_room()


def _check_sum(path):
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read checkpoint {path}: {error.strerror}") from error
    end = len(content) - len(_MARK) - _NUMBER_BYTES
    mark, number = content[end : end + len(_MARK)], content[-_NUMBER_BYTES:]
    if end <= 0 or mark != _MARK or int.from_bytes(number, "big") != binascii.crc32(memoryview(content)[:end]):
        raise DamagedCheckpoint(
            f"checkpoint {path} is damaged or incomplete, or not written by this program (its checksum is missing or "
            f"wrong); use another one"
        )


def _fill(targets, parameters, path, meta):
    missing = [name for name in targets if name not in parameters]
    unexpected = [name for name in parameters if name not in targets]
    different = [
        f"{name} (file {_kind(parameters[name])}, model {_kind(target)})"
        for name, target in targets.items()
        if name in parameters and _kind(parameters[name]) != _kind(target)
    ]
    if missing or unexpected or different:
        model = meta.get("model", {})
        wrong = {"missing": missing, "unexpected": unexpected, "different": different}
        raise UserError(
            f"checkpoint {path} was written for {model.get('name', 'an unknown model')} with "
            f"{model.get('num_classes', 'an unknown number of')} classes and does not fit this model: "
            + "; ".join(f"{kind}: {_first(names)}" for kind, names in wrong.items() if names)
            + "; give the --config (and --model.* options) it was trained with"
        )
    for name, target in targets.items():
        target.set_data(parameters[name])


def _kind(parameter):
    return f"{parameter.dtype} {parameter.shape}".lower()


def _first(names, shown=3):
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
