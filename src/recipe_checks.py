# SPDX-License-Identifier: Apache-2.0
"""Settings of a training recipe that are each possible but not together."""

from src.errors import UserError

# Which choices of its section's name use this key; the others refuse it.
_USERS = {
    "optimizer.momentum": ("momentum",),
    "optimizer.beta1": ("adamw", "lamb"),
    "optimizer.beta2": ("adamw", "lamb"),
    "optimizer.epsilon": ("adamw", "lamb"),
    "scheduler.min_lr": ("cosine",),
    "scheduler.step_epochs": ("step",),
    "scheduler.milestones": ("multi_step",),
    "scheduler.factor": ("step", "multi_step"),
}


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
    _check_drops(config, source)
    parts, batch_size = config.optimizer.micro_batches, config.data.batch_size
    if batch_size % parts:
        raise UserError(
            f"{source('optimizer.micro_batches')}: optimizer.micro_batches is {parts} but takes a divisor of "
            f"data.batch_size, {batch_size}"
        )


def _check_drops(config, source):
    """Refuse drops of the learning rate inside of the warm-up or after the end."""
    scheduler, epochs = config.scheduler, config.train.epochs
    name = {"step": "step_epochs", "multi_step": "milestones"}.get(scheduler.name)
    if name is None:
        return
    value = getattr(scheduler, name)
    drops = value if name == "milestones" else [value]
    if drops != sorted(set(drops)) or not scheduler.warmup_epochs <= drops[0] <= drops[-1] < epochs:
        raise UserError(
            f"{source(f'scheduler.{name}')}: scheduler.{name} is {value} but takes ascending epochs from "
            f"scheduler.warmup_epochs, {scheduler.warmup_epochs}, to below train.epochs, {epochs}"
        )
