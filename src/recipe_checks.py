# SPDX-License-Identifier: Apache-2.0
"""Settings of a training recipe that are each possible but not together."""

import math
from functools import reduce

from src.errors import UserError
from src.schema import walk
from src.task_config import HEADS

# Which choices of its section's name use this key; the others refuse it.
_USERS = {
    "data.class_names": ("mnist",),
    "optimizer.momentum": ("momentum",),
    "optimizer.beta1": ("adamw", "lamb"),
    "optimizer.beta2": ("adamw", "lamb"),
    "optimizer.epsilon": ("adamw", "lamb"),
    "scheduler.min_lr": ("cosine", "poly"),
    "scheduler.power": ("poly",),
    "scheduler.step_epochs": ("step",),
    "scheduler.milestones": ("multi_step",),
    "scheduler.factor": ("step", "multi_step"),
}

# A key that, where it is not 0, takes the place of others; they are refused beside it.
_REPLACING = {
    "data.crop_padding": ("data.crop_scale", "data.crop_ratio"),
    "train.steps": ("train.epochs",),
    "scheduler.warmup_steps": ("scheduler.warmup_epochs",),
}

# Which tasks use these keys, or all of a section; the others refuse them.
_TASKS = {
    ("segmentation",): ("segmentation",),
    ("detection",): ("detection",),
    ("segmentation", "detection"): ("model.head_channels",),
    ("classification",): (
        *("loss", "finetune.layer_decay", "data.train_split", "data.val_split", "data.damaged_list", "data.resize"),
        *("data.crop_scale", "data.crop_ratio", "data.crop_padding", "data.interpolation", "data.randaugment"),
        *("data.random_erasing", "data.mixup", "data.cutmix", "data.train_limit"),
    ),
}
# data.name, by task.
_DATA = {
    "classification": ("image_folder", "digits", "cifar10", "cifar100", "mnist"),
    "segmentation": ("image_folder", "scenes"),
    "detection": ("image_folder", "scenes"),
}


def _check_windows(config, source):
    stride, window = config.segmentation.window_stride, config.model.size
    steps = stride if isinstance(stride, list) else [stride, stride]
    if stride and not all(1 <= step <= side for step, side in zip(steps, window)):
        name = "segmentation.window_stride"
        raise UserError(
            f"{source(name)}: {name} is {stride} but takes from 1 to the sides of model.image_size, "
            f"{window[0]} x {window[1]}, which the windows have"
        )


def _check_head(config, source):
    head, takes = config.model.head, HEADS.get(config.task, ())
    owners = [task for task, heads in HEADS.items() if head in heads]
    if owners and config.task not in owners:
        raise UserError(
            f"{source('model.head')}: model.head belongs to task {owners[0]} but task is {config.task}; "
            + (f"give {_or(takes)}" if takes else "leave it out")
        )
    if takes and not head:
        raise UserError(f"{source('model.head')}: model.head takes {_or(takes)} where task is {config.task}")
    if takes and config.model.in_channels != 3:
        raise UserError(f"{source('model.in_channels')}: model.in_channels takes 3 where task is {config.task}")


def _or(names):
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def _check_shapes(config, source):
    """Refuse a size of the network's input that images of detection would not have."""
    settings = config.detection
    wide = [-(-math.ceil(side) // settings.divisor) * settings.divisor for side in settings.scale]
    size = list(config.model.size)
    if size != wide:
        raise UserError(
            f"{source('model.image_size')}: model.image_size is {size} but takes {wide}, the sides of detection.scale "
            f"raised to multiples of detection.divisor, {settings.divisor}"
        )
    if config.train.data_sink and size[0] != size[1]:
        raise UserError(
            f"{source('train.data_sink')}: train.data_sink takes pictures of one shape but detection has wide and tall "
            "ones; leave it out"
        )
    if settings.short_sides and max(settings.short_sides) > min(settings.scale):
        name = "detection.short_sides"
        raise UserError(
            f"{source(name)}: {name} has {max(settings.short_sides):g} but takes at most the shorter side of "
            f"detection.scale, {min(settings.scale):g}"
        )


# What a task checks of its own keys.
_CHECKS = {"segmentation": _check_windows, "detection": _check_shapes}


def check_task(config, source):
    """Refuse keys that belong to another task than `config.task`, and lacks of its own.

    Args, Raises: as `check_recipe`.
    """
    defaults = type(config)(model=type(config.model)(config.model.name))
    for tasks, names in _TASKS.items():
        for name, _, _ in walk(type(config)) if config.task not in tasks else ():
            is_of_task = any(name == other or name.startswith(f"{other}.") for other in names)
            now, default = (reduce(getattr, name.split("."), values) for values in (config, defaults))
            if is_of_task and now != default:
                raise UserError(
                    f"{source(name)}: {name} belongs to task {_or(tasks)} but task is {config.task}; leave it out"
                )
    _check_head(config, source)
    if check := _CHECKS.get(config.task):
        check(config, source)
    names = _DATA[config.task]
    if config.data.name not in names:
        raise UserError(
            f"{source('data.name')}: data.name is {config.data.name} but {config.task} takes {' or '.join(names)}"
        )


def check_recipe(config, source):
    """Refuse keys that the chosen optimiser or schedule does not use, and numbers that do not fit others.

    Args:
        config (Config): the settings.
        source: `source(dotted key)` names the file or flag that a value came from.

    Raises:
        UserError: names the key, its source and what it takes.
    """
    for name, users in _USERS.items():
        group, _, field = name.partition(".")
        chosen = getattr(config, group)
        if chosen.name not in users and getattr(chosen, field) != getattr(type(chosen)(), field):
            raise UserError(
                f"{source(name)}: {name} belongs to {' and '.join(users)} but {group}.name is {chosen.name}; "
                f"leave it out"
            )
    _check_replaced(config, source)
    _check_warmup(config, source)
    _check_drops(config, source)
    parts, batch_size = config.optimizer.micro_batches, config.data.batch_size
    if batch_size % parts:
        raise UserError(
            f"{source('optimizer.micro_batches')}: optimizer.micro_batches is {parts} but takes a divisor of "
            f"data.batch_size, {batch_size}"
        )


def _check_replaced(config, source):
    """Refuse keys beside one that takes their place."""
    for replacing, names in _REPLACING.items():
        for name in names if reduce(getattr, replacing.split("."), config) else ():
            group, _, field = name.partition(".")
            section = getattr(config, group)
            if getattr(section, field) != getattr(type(section)(), field):
                raise UserError(
                    f"{source(name)}: {name} has no effect with {replacing}; leave one of them out, or give "
                    f"{replacing} 0"
                )


def _check_warmup(config, source):
    """Refuse a warm-up beyond the end, where both are counted alike; else `learning_rates` does."""
    for unit in ("steps", "epochs"):
        warmup, length = getattr(config.scheduler, f"warmup_{unit}"), getattr(config.train, unit)
        is_counted = unit == "steps" or not (config.train.steps or config.scheduler.warmup_steps)
        if is_counted and length and warmup > length:
            name = f"scheduler.warmup_{unit}"
            raise UserError(f"{source(name)}: {name} is {warmup} but takes at most train.{unit}, {length}")


def _check_drops(config, source):
    """Refuse drops of the learning rate inside of the warm-up or after the end; in steps, `learning_rates` does."""
    scheduler, epochs = config.scheduler, config.train.epochs
    name = {"step": "step_epochs", "multi_step": "milestones"}.get(scheduler.name)
    if name is None or config.train.steps or scheduler.warmup_steps:
        return
    value = getattr(scheduler, name)
    drops = value if name == "milestones" else [value]
    if drops != sorted(set(drops)) or not scheduler.warmup_epochs <= drops[0] <= drops[-1] < epochs:
        raise UserError(
            f"{source(f'scheduler.{name}')}: scheduler.{name} is {value} but takes ascending epochs from "
            f"scheduler.warmup_epochs, {scheduler.warmup_epochs}, to below train.epochs, {epochs}"
        )
