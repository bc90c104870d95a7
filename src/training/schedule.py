# SPDX-License-Identifier: Apache-2.0
"""The learning rate of every step, as a closed form: linear warm-up, then a cosine or a constant."""

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

    Over the W warm-up steps it climbs linearly from `base_lr / W` to `base_lr`; after them "cosine" (Loshchilov and
    Hutter, arXiv 1608.03983) falls to exactly `min_lr` at the last step and "constant" stays.

    Args:
        config (SchedulerConfig): name, warmup_epochs (at most `epochs`), min_lr.
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
    # Step `warmup - 1` holds the peak, so the fall begins one step later and ends with the last step.
    progress = np.arange(1, total - warmup + 1) / max(total - warmup, 1)
    if config.name == "cosine":
        rest = config.min_lr + (base_lr - config.min_lr) * 0.5 * (1.0 + np.cos(np.pi * progress))
    else:
        rest = np.full_like(progress, base_lr)
    return np.concatenate([ramp, rest]).astype(np.float32)
