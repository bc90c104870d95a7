# SPDX-License-Identifier: Apache-2.0
"""A network on a backbone that begins with the weights of a classifier, or of another network of its kind."""

import mindspore as ms

from src.data.classes import listed
from src.errors import UserError
from src.models.image_size import resizers
from src.ops.drop_path import random_state
from src.training.checkpoint import read_checkpoint

_BACKBONE = "backbone."
# What a training's checkpoint holds beside the network.
_BESIDE = ("optimizer.", "ema.")


def load_backbone(network, path):
    """Fill `network` as far as a checkpoint goes: by name, and by `backbone.NAME` where it is a classifier's.

    Tables that depend on the image size are interpolated. Whatever is neither loaded nor left over is counted: weights
    that were not loaded are the usual reason for a low accuracy.

    Returns:
        str: how many were loaded, which of the network are new, and which of the file are left over.

    Raises:
        UserError: nothing of the backbone is in the file, a weight of it has another shape, or as `read_checkpoint`.
    """
    parameters, meta = read_checkpoint(path)
    parameters = {name: value for name, value in parameters.items() if not name.startswith(_BESIDE)}
    if not any(name.startswith(_BACKBONE) for name in parameters):
        parameters = {_BACKBONE + name: value for name, value in parameters.items()}
    tables, counters = resizers(network), random_state(network)
    new, loaded = [], 0
    for own in network.get_parameters():
        value = parameters.pop(own.name, None)
        if value is not None and own.name in tables:
            table = tables[own.name](value.asnumpy(), meta.get("model", {}).get("image_size"))
            value = ms.Parameter(ms.Tensor(table))
        if value is not None and value.shape == own.shape:
            own.set_data(value)
            loaded += 1
        elif value is not None and own.name.startswith(_BACKBONE):
            raise UserError(
                f"checkpoint {path} does not fit this backbone: {own.name} is {value.shape} there, {own.shape} here; "
                "give the options it was trained with (--model.options.*)"
            )
        elif own.name not in counters:
            new.append(own.name)
    lacking = [name for name in new if name.startswith(_BACKBONE)]
    if lacking and len(lacking) > loaded:
        raise UserError(f"checkpoint {path} has no {_counted(lacking)}; give a checkpoint of this backbone")
    return (
        f"began with {loaded} weights of {path}; new here: {_counted(new)}; left over there: {_counted([*parameters])}"
    )


def _counted(names):
    return f"{len(names)} ({listed(names)})" if names else "none"
