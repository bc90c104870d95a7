# SPDX-License-Identifier: Apache-2.0
"""The whole training: data, model, steps, an evaluation each epoch, checkpoints, curves."""

import dataclasses

import mindspore as ms
from mindspore import nn

from src.config import save_config
from src.data.dataset import create_dataset, iterate
from src.data.image_folder import check_image_folder
from src.errors import UserError
from src.training.checkpoint import load_training_state, save_training_state, save_weights
from src.training.curves import plot_curves
from src.training.evaluate import EvaluationStep, evaluate
from src.training.metrics import MetricsLog
from src.training.monitor import Monitor
from src.training.network import build_network
from src.training.optimizer import create_optimizer
from src.training.parallel import average_norm_statistics, check_same_weights
from src.training.precision import create_scaler, mixed_precision, restore_scaler, scaler_state
from src.training.progress import Progress
from src.training.run_folder import RunFolder
from src.training.schedule import learning_rates, scaled_lr
from src.training.step import TrainStep


def train(config, world, resume=None):
    """Train as `config` says and leave the results in `config.output_dir` (see `RunFolder`).

    An own loop instead of `Model.train`: an epoch is a plain `for`, so that evaluating between epochs and going on at
    any of them need no callbacks; for data sinking `ms.data_sink(step, images)` would take the place of that `for`.

    Args:
        config (Config): the experiment.
        world (World): this worker among the others; only rank 0 writes and reports.
        resume (str): None starts anew; "auto" goes on from `last.ckpt` in the output folder, or starts anew where there
            is none; else the path of a `last.ckpt`. The next epoch has the weights, moments, learning rates and images
            that it would have had without the stop.

    Returns:
        dict: epoch, step, best_top1 (percent), and of the last evaluation top1, top5, loss, samples.

    Raises:
        UserError: the output folder, the data, the model or the checkpoint cannot be used, or the loss is not finite.
    """
    scaler = create_scaler(config.device)
    folder = RunFolder(config.output_dir)
    if world.rank == 0:
        folder.prepare()
    checkpoint = folder.checkpoint_to_resume(resume)
    classes = check_image_folder(config.data, config.model.num_classes, ("train", "val"))
    ms.set_seed(config.train.seed)
    network = build_network(config.model)
    steps_per_epoch = _images(config, world, "train").get_dataset_size()
    base_lr = scaled_lr(config.optimizer, config.data.batch_size, world.size)
    lrs = learning_rates(config.scheduler, base_lr, steps_per_epoch, config.train.epochs)
    optimizer = create_optimizer(network, config.optimizer, lrs)
    state = {"epoch": 0, "step": 0, "best_top1": -1.0}
    if checkpoint:
        state = _restored(network, optimizer, scaler, checkpoint, steps_per_epoch)
    monitor = _monitor(config, world, folder, lrs, steps_per_epoch, checkpoint, state)

    forward = mixed_precision(network, config.device.amp_level, config.device.amp_dtype)
    loss = nn.CrossEntropyLoss(label_smoothing=config.loss.label_smoothing)
    train_step = TrainStep(forward, loss, optimizer, world, scaler, config.optimizer.clip_norm)
    evaluation_step = EvaluationStep(forward)
    for epoch in range(state["epoch"] + 1, config.train.epochs + 1):
        train_step.set_train(True)
        with monitor.epoch(epoch):
            for image, label in iterate(_images(config, world, "train", epoch)):
                monitor.after_step(train_step(image, label))
        average_norm_statistics(network, world)
        check_same_weights(network, world)
        result = evaluate(evaluation_step, _images(config, world, "val"), world)
        monitor.after_evaluation(result)
        best_top1 = max(result["top1"], state["best_top1"])
        is_best = best_top1 > state["best_top1"]
        state = {"epoch": epoch, "step": epoch * steps_per_epoch, "best_top1": best_top1, **result}
        if world.rank == 0:
            model = dataclasses.asdict(config.model)
            meta = {
                **state,
                "model": model,
                "classes": classes,
                "steps_per_epoch": steps_per_epoch,
                "loss_scaler": scaler_state(scaler),
            }
            # The best first: a kill between the two repeats the epoch instead of losing it.
            if is_best:
                save_weights(folder.best, network, meta)
            save_training_state(folder.last, network, optimizer, meta)
            plot_curves(folder.metrics, folder.curves)
    return state


def _images(config, world, split, epoch=0):
    model = config.model
    return create_dataset(
        config.data, model.image_size, model.in_channels, split, world.rank, world.size, config.train.seed, epoch
    )


def _restored(network, optimizer, scaler, checkpoint, steps_per_epoch):
    meta = load_training_state(network, optimizer, checkpoint)
    if meta["steps_per_epoch"] != steps_per_epoch:
        raise UserError(
            f"checkpoint {checkpoint} has {meta['steps_per_epoch']} steps an epoch but this run has {steps_per_epoch}; "
            f"resume with the same images, data.batch_size and number of workers"
        )
    restore_scaler(scaler, meta["loss_scaler"])
    return {key: meta[key] for key in ("epoch", "step", "best_top1", "top1", "top5", "loss", "samples")}


def _monitor(config, world, folder, lrs, steps_per_epoch, checkpoint, state):
    """Return the monitor; for rank 0 with the reports, after writing down what this run is."""
    metrics = progress = None
    if world.rank == 0:
        progress = Progress(config.train.epochs, steps_per_epoch)
        if checkpoint:
            progress.say(f"resuming from {checkpoint} after epoch {state['epoch']}")
        if checkpoint != folder.last and (aside := folder.set_earlier_run_aside()):
            progress.say(f"moved the earlier run in {folder.path} to {aside}; --resume auto would have continued it")
        save_config(config, folder.config)
        metrics = MetricsLog(folder.metrics, keep_to=state["step"])
    return Monitor(
        lrs,
        steps_per_epoch,
        config.data.batch_size * world.size,
        config.train.log_interval,
        folder.last,
        metrics,
        progress,
    )
