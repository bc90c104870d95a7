# SPDX-License-Identifier: Apache-2.0
"""A training that begins with the weights of an earlier one."""

from fnmatch import fnmatchcase

from mindspore import Parameter, nn, ops

from src.errors import UserError, did_you_mean
from src.training.checkpoint import load_weights, read_checkpoint


def prepare_fine_tuning(network, config, is_resumed):
    """Do to a fresh network what a `FinetuneConfig` asks for, before the optimiser and the averages are made.

    Args:
        network (Backbone): a classifier.
        config (FinetuneConfig): what to begin with and what to leave alone.
        is_resumed (bool): the weights will come from a checkpoint of this very run.

    Returns:
        list[str]: what was done, a line each, for the log.

    Raises:
        UserError: a checkpoint that does not fit, a pattern that no parameter has, or nothing left to train.
    """
    lines = []
    if config.pretrained and not is_resumed:
        lines.append(load_pretrained(network, config.pretrained))
    patterns = config.freeze.split()
    if patterns:
        lines.append(freeze(network, patterns))
    return lines


def load_pretrained(network, path):
    """Fill `network` from a checkpoint of either kind; a head for another number of classes stays as initialised.

    Returns:
        str: what was loaded, one line.

    Raises:
        UserError: as `load_weights`; all but the head has to fit.
    """
    head = getattr(network, network.head_name)
    in_file = read_checkpoint(path)[0].get(head.weight.name)
    line = f"began with the weights of {path}"
    if in_file is None or in_file.shape[0] == head.out_channels:
        load_weights(network, path)
        return line
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
    return f"{line}, with a new head: {head.out_channels} classes here, {in_file.shape[0]} there"


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
