# SPDX-License-Identifier: Apache-2.0
"""A training that begins with the weights of an earlier one, or leaves some of its own alone."""

from mindspore import nn

from src.errors import UserError
from src.training.name_patterns import matching


def prepare_fine_tuning(network, task, is_resumed):
    """Do to a fresh network what the `finetune` section of a task asks for, before its optimiser is made.

    Args:
        network (nn.Cell): of the task.
        task (Task): opened to train.
        is_resumed (bool): the weights will come from a checkpoint of this very run.

    Returns:
        tuple: what was done, a line each, for the log; and what was `Loaded`, None without a checkpoint.

    Raises:
        UserError: a checkpoint that does not fit, a pattern that no parameter has, or nothing left to train.
    """
    lines, loaded, config = [], None, task.config.finetune
    if config.pretrained and not is_resumed:
        loaded = task.load_pretrained(network, config.pretrained)
        lines.append(loaded.line)
    patterns = config.freeze.split()
    if patterns:
        lines.append(freeze(network, patterns))
    if config.norm_eval:
        lines.append(keep_averages(network))
    return lines, loaded


def freeze(network, patterns):
    """Take the parameters whose names match one of the shell `patterns` out of training.

    A batch norm frozen whole normalises by its averages, as in evaluation, and so keeps them too.

    Returns:
        str: how many were frozen, one line.

    Raises:
        UserError: a pattern matches no trainable parameter, or nothing is left to train.
    """
    trainable = network.trainable_params()
    names = matching([parameter.name for parameter in trainable], patterns, "finetune.freeze")
    frozen = [parameter for parameter in trainable if parameter.name in names]
    if len(frozen) == len(trainable):
        raise UserError(f"finetune.freeze: {' '.join(patterns)} leaves nothing to train; take some away")
    for parameter in frozen:
        parameter.requires_grad = False
    for _, cell in network.cells_and_names():
        if isinstance(cell, nn.BatchNorm2d) and not (cell.gamma.requires_grad or cell.beta.requires_grad):
            cell.use_batch_statistics = False
    return f"froze {len(frozen)} of {len(trainable)} parameters"


def keep_averages(network):
    """Let each batch norm normalise by its averages, as in evaluation, and keep them; return one line on it."""
    norms = [cell for _, cell in network.cells_and_names() if isinstance(cell, nn.BatchNorm2d)]
    for norm in norms:
        norm.use_batch_statistics = False
    return f"{len(norms)} batch norms keep their averages"
