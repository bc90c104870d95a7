# SPDX-License-Identifier: Apache-2.0
"""A training that begins with the weights of an earlier one."""

from fnmatch import fnmatchcase

from mindspore import Parameter, nn, ops

from src.data.classes import Classes
from src.errors import UserError, did_you_mean
from src.training.checkpoint import load_weights, read_checkpoint


def prepare_fine_tuning(network, config, classes, is_resumed):
    """Do to a fresh network what a `FinetuneConfig` asks for, before the optimiser and the averages are made.

    Args:
        network (Backbone): a classifier.
        config (FinetuneConfig): what to begin with and what to leave alone.
        classes (Classes): to train.
        is_resumed (bool): the weights will come from a checkpoint of this very run.

    Returns:
        tuple: what was done, a line each, for the log; and the classes in the order in which the head has them.

    Raises:
        UserError: a checkpoint that does not fit, a pattern that no parameter has, or nothing left to train.
    """
    lines = []
    if config.pretrained and not is_resumed:
        line, classes = load_pretrained(network, config.pretrained, classes)
        lines.append(line)
    patterns = config.freeze.split()
    if patterns:
        lines.append(freeze(network, patterns))
    return lines, classes


def load_pretrained(network, path, classes):
    """Fill `network` from a checkpoint of either kind; a head for other classes than `classes` stays as initialised.

    The same classes may have other numbers there: they keep those.

    Returns:
        tuple: what was loaded, one line; and the classes in the order in which the head has them.

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
            return line, classes if there.folders is None else there
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
    return line, classes


def freeze(network, patterns):
    """Take the parameters whose names match one of the shell `patterns` out of training.

    A batch norm frozen whole normalises by its averages, as in evaluation, and so keeps them too.

    Returns:
        str: how many were frozen, one line.

    Raises:
        UserError: a pattern matches no trainable parameter, or nothing is left to train.
    """
    trainable = network.trainable_params()
    names = [parameter.name for parameter in trainable]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"finetune.freeze: no trainable parameter is called {pattern}{did_you_mean(pattern, _patterns(names))}"
            )
    frozen = [p for p in trainable if any(fnmatchcase(p.name, pattern) for pattern in patterns)]
    if len(frozen) == len(trainable):
        raise UserError(f"finetune.freeze: {' '.join(patterns)} leaves nothing to train; take some away")
    for parameter in frozen:
        parameter.requires_grad = False
    for _, cell in network.cells_and_names():
        if isinstance(cell, nn.BatchNorm2d) and not (cell.gamma.requires_grad or cell.beta.requires_grad):
            cell.use_batch_statistics = False
    return f"froze {len(frozen)} of {len(trainable)} parameters"


def _patterns(names):
    """All names, and each Cell's as the pattern of what it holds."""
    cells = {name[:end] for name in names for end in range(len(name)) if name[end] == "."}
    return [*names, *(f"{cell}.*" for cell in sorted(cells))]
