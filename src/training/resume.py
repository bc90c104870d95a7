# SPDX-License-Identifier: Apache-2.0
"""Going on from a checkpoint: the newest whole one, and only where the run is still the same."""

from functools import reduce

import mindspore as ms

from src.errors import UserError
from src.schema import walk
from src.training.checkpoint import DamagedCheckpoint, load_training_state

# Settings of where and how a run is watched, which change nothing of what it learns.
_FREE = (
    *("output_dir", "data.data_dir", "data.num_workers", "data.damaged_list", "device.target", "device.device_id"),
    "device.kernels",
    *("train.log_interval", "train.save_steps", "train.keep_checkpoints", "train.data_sink", "finetune.pretrained"),
)


def setting_of(config, world, images, steps_per_epoch):
    """Return what has to be the same when a run goes on."""
    return {
        "workers": world.size,
        "batch_size": config.data.batch_size,
        "images": images,
        "steps_per_epoch": steps_per_epoch,
        "seed": config.train.seed,
    }


def recipe_of(config):
    """Return the settings of a `Config` that what is learned depends on, by their dotted keys."""
    names = (name for name, _, _ in walk(type(config)) if name not in _FREE)
    return {name: reduce(getattr, name.split("."), config) for name in names}


def restored(trainer, checkpoints, allow_changes):
    """Fill `trainer` from the first of `checkpoints` that is whole.

    Args:
        trainer (Trainer): at its first step.
        checkpoints (list): paths, the one to prefer first.
        allow_changes (bool): accept one of another setting, for its whole epochs.

    Returns:
        tuple: the checkpoint's `meta`, {} without one; its path, None without one; lines on damaged ones before it and
        on settings that have changed since.

    Raises:
        UserError: no checkpoint is whole, or it does not fit (see `load_training_state`) or has another setting.
    """
    lines = []
    for path in checkpoints:
        changes = {}

        def check(meta, path=path, changes=changes):
            changes.update(_changes(meta.get("recipe", {}), recipe_of(trainer.config)))
            _refuse_another_state(changes, path)
            trainer.task.adopt(meta, f"checkpoint {path}")

        try:
            meta = load_training_state(trainer.network, trainer.optimizer, path, trainer.ema, check)
        except DamagedCheckpoint as error:
            lines.append(f"{error}; taking the one before it")
            continue
        steps = len(trainer.plan.lrs)
        trainer.restore_scaler(meta["loss_scaler"])
        trainer.state, trainer.result = _state(meta, meta["step"] < steps)
        if differences := _changes(meta.get("setting", {}), trainer.setting):
            _accept(trainer, meta, path, differences, allow_changes)
        if trainer.state["step"] > steps:
            raise UserError(
                f"checkpoint {path} is at step {trainer.state['step']} and this training ends with step {steps}; give "
                "a larger train.epochs or train.steps"
            )
        return meta, path, lines + _describe(changes, meta, trainer)
    if checkpoints:
        raise UserError(f"no checkpoint is whole: {lines[0].partition(';')[0]}; start anew without --resume")
    return {}, None, lines


def _state(meta, goes_on):
    """Return how far the run was, and its last evaluation; earlier versions knew classification alone.

    Where it `goes_on`, an epoch that was the last and cut short is not done yet.
    """
    best = meta["best"] if "best" in meta else meta["best_top1"]
    before = {name: meta[name] for name in ("top1", "top5", "loss", "samples") if name in meta}
    epoch = _whole_epochs(meta) if goes_on else meta["epoch"]
    return {"epoch": epoch, "step": meta["step"], "best": best}, meta.get("result", before)


def _whole_epochs(meta):
    """Return how many epochs a checkpoint has done to their last step."""
    steps_per_epoch = meta.get("setting", {}).get("steps_per_epoch")
    return min(meta["epoch"], meta["step"] // steps_per_epoch) if steps_per_epoch else meta["epoch"]


def _changes(before, now):
    """Return the settings that differ, as (then, now) by their dotted keys."""
    return {name: (before[name], value) for name, value in now.items() if name in before and before[name] != value}


def _refuse_another_state(changes, path):
    """Refuse a checkpoint whose tensors are of another network or optimiser: by the settings, not the tensors."""
    average = changes.get("optimizer.ema_decay")
    refused = [
        f"{name} {before}, now {now}"
        for name, (before, now) in changes.items()
        if name in ("task", "optimizer.name")
        or (name.startswith("model.") and name != "model.drop_path_rate")
        or (average and name == "optimizer.ema_decay" and 0 in average)
    ]
    if refused:
        raise UserError(
            f"checkpoint {path} is of another run: {'; '.join(refused)}; resume with the same, or begin a new run with "
            f"its weights: --pretrained {path}"
        )


def _describe(changes, meta, trainer):
    """Return a line on the other settings that have changed, and on a learning rate that jumps with them."""
    if not changes:
        return []
    told = "; ".join(f"{name} {before}, now {now}" for name, (before, now) in changes.items())
    lines = [f"changed since this checkpoint: {told}"]
    step, before = trainer.state["step"], meta.get("lr")
    if before is not None and step < len(trainer.plan.lrs):
        now = float(trainer.plan.lrs[step])
        if not 0.5 * before < now < 2 * before:
            lines.append(f"the learning rate jumps from {before:.6f} to {now:.6f}: the schedule is another one now")
    return lines


def _accept(trainer, meta, path, differences, allow_changes):
    """Take over the whole epochs of a checkpoint of another setting."""
    if not allow_changes:
        told = "; ".join(f"{name.replace('_', ' ')} {then}, now {now}" for name, (then, now) in differences.items())
        raise UserError(
            f"checkpoint {path} is of another run: {told}; resume with the same ones, or go on from the "
            "last whole epoch with --allow_changes"
        )
    # Steps are of another size now: the epochs say how far the run is.
    epoch = _whole_epochs(meta)
    step = epoch * trainer.plan.steps_per_epoch
    trainer.state.update(epoch=epoch, step=step)
    trainer.optimizer.global_step.set_data(ms.Tensor([step], ms.int32))
    meta["unread"] = []
