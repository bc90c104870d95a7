# SPDX-License-Identifier: Apache-2.0
"""Going on from a checkpoint: the newest whole one, and only where the run is still the same."""

import mindspore as ms

from src.errors import UserError
from src.training.checkpoint import DamagedCheckpoint, load_training_state

# What `train` returns of a run so far.
_STATE = ("epoch", "step", "best_top1", "top1", "top5", "loss", "samples")


def setting_of(config, world, steps_per_epoch):
    """Return what has to be the same when a run goes on."""
    return {
        "workers": world.size,
        "batch_size": config.data.batch_size,
        "steps_per_epoch": steps_per_epoch,
        "seed": config.train.seed,
    }


def restored(trainer, checkpoints, allow_changes):
    """Fill `trainer` from the first of `checkpoints` that is whole.

    Args:
        trainer (Trainer): at its first step.
        checkpoints (list): paths, the one to prefer first.
        allow_changes (bool): accept one of another setting, for its whole epochs.

    Returns:
        tuple: the checkpoint's `meta`, {} without one; its path, None without one; a line on each damaged one before.

    Raises:
        UserError: no checkpoint is whole, or it does not fit (see `load_training_state`) or has another setting.
    """
    damaged = []
    for path in checkpoints:
        try:
            meta = load_training_state(trainer.network, trainer.optimizer, path, trainer.ema)
        except DamagedCheckpoint as error:
            damaged.append(f"{error}; taking the one before it")
            continue
        trainer.restore_scaler(meta["loss_scaler"])
        trainer.state = {key: meta[key] for key in _STATE if key in meta}
        if meta.get("setting") != trainer.setting:
            _accept(trainer, meta, path, allow_changes)
        return meta, path, damaged
    if checkpoints:
        raise UserError(f"no checkpoint is whole: {damaged[0].partition(';')[0]}; start anew without --resume")
    return {}, None, damaged


def _accept(trainer, meta, path, allow_changes):
    """Take over the whole epochs of a checkpoint of another setting."""
    if not allow_changes:
        before = meta.get("setting", {})
        changes = [
            f"{name.replace('_', ' ')} {before.get(name)}, now {value}"
            for name, value in trainer.setting.items()
            if before.get(name) != value
        ]
        raise UserError(
            f"checkpoint {path} is of another run: {'; '.join(changes)}; resume with the same ones, or go on from the "
            "last whole epoch with --allow_changes"
        )
    # Steps are of another size now: the epochs say how far the run is.
    step = meta["epoch"] * trainer.plan.steps_per_epoch
    trainer.state["step"] = step
    trainer.optimizer.global_step.set_data(ms.Tensor([step], ms.int32))
    meta["unread"] = []
