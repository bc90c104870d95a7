# SPDX-License-Identifier: Apache-2.0
"""The learning rate of every step, as a closed form: linear warm-up, then a cosine, a power, drops or a constant."""

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


def learning_rates(config, base_lr, steps_per_epoch, steps):
    """Return the learning rate of each step of the whole training.

    It is that of the schedule, in the warm-up times a share. "cosine" (Loshchilov and Hutter, arXiv 1608.03983) begins
    after the warm-up and falls to exactly `min_lr` at the last step. "poly" falls from the first step n = 0 on, warm-up
    or not: `min_lr + (base_lr - min_lr) * (1 - n / steps) ** power`. "step" and "multi_step" are `base_lr` times
    `factor` for each drop so far, every `step_epochs` or at the `milestones`, epochs since the start; "constant" stays.
    The shares of W warm-up steps are 1/W, 2/W, ... 1; with a `warmup_ratio`, mmcv's, which climb from it at the first
    step to 1 at the one after the warm-up.

    Args:
        config (SchedulerConfig): the shape.
        base_lr (float): the peak learning rate, see `scaled_lr`.
        steps_per_epoch (int): training steps an epoch.
        steps (int): those of the whole training.

    Returns:
        numpy.ndarray: float32 (steps,).

    Raises:
        UserError: `min_lr` is above the peak, the warm-up beyond the end, or a drop in the one or beyond the other.
    """
    if config.name in ("cosine", "poly") and config.min_lr > base_lr:
        raise UserError(
            f"scheduler.min_lr {config.min_lr:g} is above the peak learning rate {base_lr:g}; "
            f"lower it, or raise optimizer.lr"
        )
    warmup = config.warmup_steps or round(config.warmup_epochs * steps_per_epoch)
    if warmup > steps:
        raise UserError(f"the warm-up has {warmup} steps and the whole training {steps}; shorten scheduler.warmup_*")
    step = np.arange(steps)
    if config.name == "cosine":
        # Step `warmup - 1` holds the peak, so the fall begins one step later and ends with the last step.
        progress = np.maximum(step + 1 - warmup, 0) / max(steps - warmup, 1)
        rates = config.min_lr + (base_lr - config.min_lr) * 0.5 * (1.0 + np.cos(np.pi * progress))
    elif config.name == "poly":
        rates = config.min_lr + (base_lr - config.min_lr) * (1 - step / steps) ** config.power
    else:
        drops = _drops(config, steps_per_epoch, steps)
        if len(drops) and not warmup <= drops[0] <= drops[-1] < steps:
            raise UserError(
                f"the learning rate drops at steps {', '.join(f'{drop:.0f}' for drop in drops)} but they lie from the "
                f"end of the warm-up, {warmup}, to below that of the training, {steps}"
            )
        rates = base_lr * config.factor ** np.searchsorted(drops, step, side="right")
    if config.warmup_ratio:
        rates[:warmup] *= config.warmup_ratio + (1 - config.warmup_ratio) * step[:warmup] / max(warmup, 1)
    else:
        rates[:warmup] *= (step[:warmup] + 1) / max(warmup, 1)
    return rates.astype(np.float32)


def _drops(config, steps_per_epoch, steps):
    """Return before which steps the rate drops, ascending."""
    if config.name == "multi_step":
        return np.round(np.array(config.milestones) * steps_per_epoch)
    period = config.step_epochs * steps_per_epoch
    return np.round(np.arange(1, steps / period) * period) if config.name == "step" else np.empty(0)
