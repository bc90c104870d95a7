# SPDX-License-Identifier: Apache-2.0
"""The learning rate of every step, as a closed form: linear warm-up, then a cosine, drops or a constant."""

import numpy as np

from src.errors import UserError


def scaled_lr(config, batch_size, world_size):
    """Return the peak learning rate for a global batch of `batch_size * world_size` images.

    The linear scaling rule (Goyal et al., arXiv 1706.02677): `config.lr` is meant per `config.lr_batch` images; with
    `lr_batch` 0 it is taken as given.
    """
    if config.lr_batch == 0:
        return config.lr
    return config.lr * batch_size * world_size / config.lr_batch


def learning_rates(config, base_lr, steps_per_epoch, epochs):
    """Return the learning rate of each step of the whole training.

    Over the W warm-up steps it climbs linearly from `base_lr / W` to `base_lr`. After them "cosine" (Loshchilov and
    Hutter, arXiv 1608.03983) falls to exactly `min_lr` at the last step; "step" and "multi_step" are `base_lr` times
    `factor` for each drop so far, every `step_epochs` or at the `milestones`, epochs since the start; "constant" stays.

    Args:
        config (SchedulerConfig): the shape; warmup_epochs is at most `epochs`.
        base_lr (float): the peak learning rate, see `scaled_lr`.
        steps_per_epoch (int): training steps an epoch.
        epochs (int): epochs of the whole training.

    Returns:
        numpy.ndarray: float32 (steps_per_epoch * epochs,).

    Raises:
        UserError: `min_lr` is above the peak of a cosine.
    """
    if config.name == "cosine" and config.min_lr > base_lr:
        raise UserError(
            f"scheduler.min_lr {config.min_lr:g} is above the peak learning rate {base_lr:g}; "
            f"lower it, or raise optimizer.lr"
        )
    total = steps_per_epoch * epochs
    warmup = round(config.warmup_epochs * steps_per_epoch)
    ramp = base_lr * np.arange(1, warmup + 1) / max(warmup, 1)
    if config.name == "cosine":
        # Step `warmup - 1` holds the peak, so the fall begins one step later and ends with the last step.
        progress = np.arange(1, total - warmup + 1) / max(total - warmup, 1)
        rest = config.min_lr + (base_lr - config.min_lr) * 0.5 * (1.0 + np.cos(np.pi * progress))
    else:
        drops = np.round(np.array(_drops(config, epochs)) * steps_per_epoch)
        rest = base_lr * config.factor ** np.searchsorted(drops, np.arange(warmup, total), side="right")
    return np.concatenate([ramp, rest]).astype(np.float32)


def _drops(config, epochs):
    """Return after how many epochs the rate drops, ascending."""
    if config.name == "multi_step":
        return config.milestones
    return np.arange(1, epochs / config.step_epochs) * config.step_epochs if config.name == "step" else []
