# SPDX-License-Identifier: Apache-2.0
"""The whole training: data, model, steps, an evaluation each epoch, checkpoints, curves."""

import dataclasses
import signal
from contextlib import nullcontext
from itertools import islice

import mindspore as ms
import numpy as np

from src.data.dataset import iterate
from src.errors import UserError
from src.ops.draws import random_state
from src.training.checkpoint import save_training_state, save_weights
from src.training.curves import plot_curves
from src.training.ema import Ema
from src.training.evaluate import evaluate
from src.training.fine_tuning import prepare_fine_tuning
from src.training.kernels import kernels_of
from src.training.monitor import Monitor, Plan, path_weights
from src.training.optimizer import create_optimizer
from src.training.parallel import average_norm_statistics, check_same_weights, sum_over_workers
from src.training.precision import create_scaler, mixed_precision, restore_scaler, scaler_state
from src.training.preemption import StopRequest
from src.training.reports import Reports
from src.training.resume import recipe_of, restored, setting_of
from src.training.run_folder import RunFolder
from src.training.schedule import learning_rates, scaled_lr
from src.training.sinking import sunk
from src.training.step import TrainStep


def train(task, world, resume=None, allow_changes=False):
    """Train as a `Task` and its configuration say, and leave the results in `config.output_dir` (see `RunFolder`).

    Args:
        task (Task): what is trained, and the experiment.
        world (World): this worker among the others; only rank 0 writes and reports.
        resume (str): None starts anew; "auto" goes on from the newest whole checkpoint in the output folder, or starts
            anew where there is none; else the path of a `last.ckpt`. The next step has the weights, moments, learning
            rates and images that it would have had without the stop.
        allow_changes (bool): resume too where the number of workers, the batch size or the images differ.

    Returns:
        dict: epoch, step, best (of `Task.best`), is_stopped (by SIGTERM), and what `Judge.result` gave last, if there
        was an evaluation.

    Raises:
        UserError: the output folder, the data, the model or the checkpoint cannot be used, or the loss is not finite.
        KeyboardInterrupt: Ctrl-C has stopped it, after saving; a second one at once.
    """
    config = task.config
    if config.train.data_sink and config.device.target == "CPU":
        raise UserError("train.data_sink takes an Ascend or GPU but device.target is CPU; leave train.data_sink out")
    folder = RunFolder(config.output_dir, config.train.keep_checkpoints)
    lock = folder.taken() if world.rank == 0 else nullcontext()
    with lock, StopRequest().listen() as stop, kernels_of(config.device):
        result = Trainer(task, world, folder, stop, folder.checkpoints_to_resume(resume)).run(allow_changes)
        if result["is_stopped"] and stop.signal == signal.SIGINT:
            raise KeyboardInterrupt(f"stopped at step {result['step']}, and saved; --resume auto goes on from there")
        return result


class Trainer:
    """One run, from its first step or from where a checkpoint leaves it.

    An own loop instead of `Model.train`: an epoch is a plain `for`, so that evaluating, saving and going on at any step
    need no callbacks.

    Args:
        task (Task), world (World): see `train`.
        folder (RunFolder): where the results go.
        stop (StopRequest): looked at after each step, and before each batch of an evaluation.
        checkpoints (list): paths to go on from, the newest first; without any it starts anew.
    """

    def __init__(self, task, world, folder, stop, checkpoints):
        self.task, self.config, self.world, self.folder, self.stop = task, task.config, world, folder, stop
        self.checkpoints = checkpoints
        config = self.config
        self.scaler = create_scaler(config.device)
        task.open_to_train()
        ms.set_seed(config.train.seed)
        self.network = task.build()
        self.began, self.loaded = prepare_fine_tuning(self.network, task, bool(checkpoints))
        self.plan = self.make_plan()
        recipe = config.optimizer
        self.optimizer = create_optimizer(self.network, recipe, self.plan.lrs, config.finetune.layer_decay)
        self.ema = Ema(self.network, recipe.ema_decay) if recipe.ema_decay else None
        self.forward = mixed_precision(self.network, config.device.amp_level, config.device.amp_dtype)
        self.judge = task.judge(self.forward)
        self.state, self.result = {"epoch": 0, "step": 0, "best": -1.0}, {}
        self.setting = setting_of(config, world, task.images["train"], self.plan.steps_per_epoch)

    def make_step(self):
        """Return the training step; the task knows its classes by then."""
        recipe = self.config.optimizer
        return TrainStep(
            self.forward,
            self.task.loss(self.network),
            self.optimizer,
            self.world,
            self.scaler,
            recipe.clip_norm,
            recipe.micro_batches,
            self.ema,
        )

    def make_plan(self):
        """Return the `Plan`: how many steps, and the learning rate of each."""
        config, workers = self.config, self.world.size
        steps_per_epoch = self.task.batches("train", self.world).get_dataset_size()
        base_lr = scaled_lr(config.optimizer, config.data.batch_size, workers)
        steps = config.train.steps or config.train.epochs * steps_per_epoch
        lrs = learning_rates(config.scheduler, base_lr, steps_per_epoch, steps)
        images = self.task.images["train"]
        evaluation_steps = self.task.images["val"] // (self.task.judged_at_once * workers)
        plan = Plan(steps_per_epoch, config.data.batch_size * workers, lrs, evaluation_steps)
        if left_out := images - steps_per_epoch * plan.images_per_step:
            steps = f"{steps_per_epoch} steps of {plan.images_per_step}"
            self.began.append(f"{images} images in {steps}: {left_out} stay out, others each epoch")
        return plan

    def run(self, allow_changes):
        """Train to the end, or to a request to stop; see `train`."""
        meta, checkpoint, lines = restored(self, self.checkpoints, allow_changes)
        self.step = self.make_step()
        check_same_weights(self.network, self.world)
        self.place_random_state(meta.get("draws", {}))
        is_first = self.world.rank == 0
        reports = Reports(self.config, self.folder, self.plan, self.task.told) if is_first else None
        if reports:
            reports.begin(checkpoint, [*lines, *self.began, *self.task.notes], self.state, self.loaded)
        unread = meta.get("unread", [])
        self.monitor = Monitor(self.config, self.plan, self.step, reports, self.state["step"], unread)
        last = self.plan.epochs
        with self.fed() as (step, batches):
            for epoch in range(self.state["epoch"] + 1, last + 1):
                is_done = self.is_trained(epoch, step, batches) and self.is_judged(epoch)
                if not is_done or (epoch < last and self.should_stop()):
                    return {**self.state, **self.result, "is_stopped": True}
        return {**self.state, **self.result, "is_stopped": False}

    def fed(self):
        """Return a block that gives `(step, batches)`: what to call on each batch, and where batches come from."""
        if self.config.train.data_sink:
            return sunk(self.step, self.batches, [self.plan.steps_of(e + 1) for e in range(self.plan.epochs)])
        return nullcontext((self.step, self.batches))

    def batches(self, epoch, done):
        """Yield the batches of `epoch` after the first `done`, each a tuple of Tensors."""
        steps = self.plan.steps_of(epoch)
        images = self.task.batches("train", self.world, epoch)
        # Skipped batches are made nevertheless: the augmentation draws its numbers in order.
        for batch in islice(iterate(images.skip(done) if done else images), steps - done):
            done += 1
            yield batch
        if done < steps:
            raise UserError(
                f"epoch {epoch} has {done} steps but had {steps} when the run began: images of "
                f"{self.config.data.data_dir} are gone; bring them back and go on with --resume auto"
            )

    def is_trained(self, epoch, step, batches):
        """Take the steps of `epoch` that are still to do; return whether they were all taken."""
        steps, every, log_every = (
            self.plan.steps_of(epoch),
            self.config.train.save_steps,
            self.config.train.log_interval,
        )
        done = self.state["step"] - self.plan.steps_before(epoch)
        self.step.begin()
        with self.monitor.epoch(epoch):
            for batch in self.monitor.awaited(batches(epoch, done)):
                self.monitor.after_step(*step(*batch))
                self.state["step"] += 1
                done += 1
                if done == steps:
                    break
                # Workers agree on it where they report, as they wait for the device there anyway.
                is_stopped = (self.world.size == 1 or done % log_every == 0) and self.should_stop()
                if is_stopped or (every and done % every == 0):
                    self.save()
                    self.step.begin()
                if is_stopped:
                    return False
        return True

    def should_stop(self):
        """Whether any worker was asked to stop; every worker has to call it."""
        return sum_over_workers(np.array([self.stop.is_made], np.float32), self.world)[0] > 0

    def should_leave(self, batches):
        """Whether to leave an evaluation after so many batches; workers agree where each of them has one more."""
        has_each_more = batches < self.plan.evaluation_steps
        is_asked = self.world.size == 1 or (batches % self.config.train.log_interval == 0 and has_each_more)
        return is_asked and self.should_stop()

    def is_judged(self, epoch):
        """Evaluate the weights after `epoch`, and their averages where there are some, and save.

        Between the epochs of `train.eval_epochs` it only saves.

        Returns:
            bool: False where a request to stop came first; what is saved then is evaluated when the run goes on.
        """
        if epoch % self.config.train.eval_epochs and epoch < self.plan.epochs:
            self.state["epoch"] = epoch
            self.monitor.after_epoch(path_weights(self.network))
            self.save()
            return True
        results = []
        for kind, in_place in self.weights():
            with in_place():
                average_norm_statistics(self.network, self.world)
                check_same_weights(self.network, self.world)
                result = evaluate(self.judge, self.task.batches("val", self.world), self.world, self.should_leave)
                if result is None:
                    break
                self.monitor.after_evaluation(kind, result)
                results.append(result)
                # Before the last one: a kill between the two repeats the epoch instead of losing it.
                if result[self.task.best] > self.state["best"]:
                    self.state["best"] = result[self.task.best]
                    if self.world.rank == 0:
                        save_weights(self.folder.best, self.network, {**self.meta(), "epoch": epoch, "result": result})
        if result is None:
            self.save()
            return False
        self.state["epoch"], self.result = epoch, results[0]
        self.monitor.after_epoch(path_weights(self.network))
        self.write()
        if self.world.rank == 0:
            plot_curves(self.folder.metrics, self.folder.curves, self.task.drawn)
        return True

    def weights(self):
        """Return what can be evaluated, by its kind in the metrics: a block in which the network has these weights."""
        return [("eval", nullcontext), *([("ema", self.ema.in_place)] if self.ema else [])]

    def save(self):
        """Write `last.ckpt` without an evaluation before; every worker has to call it."""
        for _, in_place in self.weights():
            with in_place():
                average_norm_statistics(self.network, self.world)
        self.write()

    def write(self):
        """Write `last.ckpt` on rank 0; the workers agree on the statistics of norms by now."""
        if self.world.rank == 0:
            make_room = self.folder.make_room
            save_training_state(self.folder.last, self.network, self.optimizer, self.meta(), self.ema, make_room)

    def meta(self):
        """Return what a checkpoint says beside its tensors."""
        return {
            **self.state,
            "result": self.result,
            "model": dataclasses.asdict(self.config.model),
            **self.task.record(),
            "setting": self.setting,
            "recipe": recipe_of(self.config),
            "lr": float(self.plan.lrs[max(self.state["step"], 1) - 1]),
            "loss_scaler": scaler_state(self.scaler),
            "draws": {name: int(draws.asnumpy()) for name, draws in random_state(self.network).items()},
            "unread": self.monitor.unread(),
        }

    def place_random_state(self, draws):
        """Let stochastic depth go on after the `draws` of rank 0, each worker in a part of the numbers of its own."""
        for name, counter in random_state(self.network).items():
            start = self.world.rank * (2**31 // self.world.size)
            counter.set_data(ms.Tensor(start + draws.get(name, 0), ms.int32))

    def restore_scaler(self, state):
        """Give the loss scaler the state that a checkpoint holds."""
        restore_scaler(self.scaler, state)
