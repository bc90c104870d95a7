# SPDX-License-Identifier: Apache-2.0
"""A network on a backbone that begins with the weights of a classifier, or of another network of its kind."""

import mindspore as ms

from src.data.classes import listed
from src.errors import UserError
from src.models.image_size import resizers
from src.ops.draws import random_state
from src.training.checkpoint import read_checkpoint
from src.training.pretrained import Loaded

_BACKBONE = "backbone."
# What a training's checkpoint holds beside the network.
_BESIDE = ("optimizer.", "ema.")


def load_backbone(network, path):
    """Fill `network` as far as a checkpoint goes: by name, and by `backbone.NAME` where it is a classifier's.

    Tables that depend on the image size are interpolated. Whatever is neither loaded nor left over is counted: weights
    that were not loaded are the usual reason for a low accuracy.

    Returns:
        Loaded: which of the network's were loaded and which are new, and which of the file's are left over.

    Raises:
        UserError: nothing of the backbone is in the file, a weight of it has another shape, or as `read_checkpoint`.
    """
    parameters, meta = read_checkpoint(path)
    parameters = {name: value for name, value in parameters.items() if not name.startswith(_BESIDE)}
    if not any(name.startswith(_BACKBONE) for name in parameters):
        parameters = {_BACKBONE + name: value for name, value in parameters.items()}
    tables, counters = resizers(network), random_state(network)
    loaded, new = [], []
    for own in network.get_parameters():
        value = parameters.get(own.name)
        if value is not None and own.name in tables:
            value = _fitted(own.name, value, tables[own.name], meta, path)
        if value is not None and value.shape == own.shape:
            own.set_data(value)
            loaded.append(own.name)
        elif value is not None and own.name.startswith(_BACKBONE):
            raise UserError(
                f"checkpoint {path} does not fit this backbone: {own.name} is {value.shape} there, {own.shape} here; "
                "give the options it was trained with (--model.options.*)"
            )
        elif own.name not in counters:
            new.append(own.name)
    lacking = [name for name in new if name.startswith(_BACKBONE)]
    if lacking and len(lacking) > len(loaded):
        raise UserError(f"checkpoint {path} has no {_counted(lacking)}; give a checkpoint of this backbone")
    left = [name for name in parameters if name not in {*loaded}]
    line = f"began with {len(loaded)} weights of {path}; new here: {_counted(new)}; left over there: {_counted(left)}"
    return Loaded(line, loaded, new, left)


def _fitted(name, value, resize, meta, path):
    """Return a table of positions brought to the size of the network's, as a Parameter."""
    try:
        table = resize(value.asnumpy(), meta.get("model", {}).get("image_size"))
    except ValueError as error:
        raise UserError(f"checkpoint {path} does not fit this backbone: {name}: {error}") from error
    return ms.Parameter(ms.Tensor(table))


def _counted(names):
    return f"{len(names)} ({listed(names)})" if names else "none"
