# SPDX-License-Identifier: Apache-2.0
"""A classifier that begins with the weights of another one, which may know other classes."""

from mindspore import Parameter, ops

from src.data.classes import Classes
from src.errors import UserError
from src.ops.draws import random_state
from src.training.checkpoint import load_weights, read_checkpoint
from src.training.pretrained import Loaded


def load_pretrained(network, path, classes):
    """Fill `network` from a checkpoint of either kind; a head for other classes than `classes` stays as initialised.

    The same classes may have other numbers there: they keep those.

    Returns:
        tuple: what was `Loaded`; and the classes in the order in which the head has them.

    Raises:
        UserError: as `load_weights`; all but the head has to fit.
    """
    head = getattr(network, network.head_name)
    parameters, meta = read_checkpoint(path)
    in_file = parameters.get(head.weight.name)
    line = f"began with the weights of {path}"
    new_head = f"{line}, with a new head: {head.out_channels} classes here"
    if in_file is None or in_file.shape[0] == head.out_channels:
        there = Classes.recorded(meta, head.out_channels)
        try:
            there.numbers_of(classes, "here", path)
        except UserError as error:
            line = f"{new_head}, others there ({str(error).partition(';')[0]})"
        else:
            load_weights(network, path)
            return _loaded(network, line, {}), classes if there.folders is None else there
    else:
        line = f"{new_head}, {in_file.shape[0]} there"
    own = {"weight": head.weight, "bias": head.bias}
    # The file is read as strictly as ever, into a head of its size that is put away afterwards.
    for name, parameter in own.items():
        shape = (in_file.shape[0], *parameter.shape[1:])
        setattr(head, name, Parameter(ops.zeros(shape, parameter.dtype), name=parameter.name))
    try:
        load_weights(network, path)
    finally:
        for name, parameter in own.items():
            setattr(head, name, parameter)
    return _loaded(network, line, own), classes


def _loaded(network, line, new):
    """Return what was `Loaded`: all but the parameters that are `new`, of whose names there are others in the file."""
    counters = random_state(network)
    names = [parameter.name for parameter in network.get_parameters() if parameter.name not in counters]
    head = {parameter.name for parameter in new.values()}
    kept = [name for name in names if name in head]
    return Loaded(line, [name for name in names if name not in head], kept, kept)
