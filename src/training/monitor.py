# SPDX-License-Identifier: Apache-2.0
"""Follow the training: refuse losses that are not finite, report every few steps what a step did and what it cost."""

import math
import time
from contextlib import contextmanager
from dataclasses import dataclass

import mindspore as ms
import numpy as np

from src.errors import UserError
from src.training.memory import peak_memory_gb
from src.training.run_folder import RunFolder


@dataclass(frozen=True)
class Plan:
    """What is to be done.

    Attributes:
        steps_per_epoch (int): training steps an epoch.
        images_per_step (int): images of all workers together.
        lrs (numpy.ndarray): (steps,), the learning rate of each step of the whole training.
        evaluation_steps (int): batches that each worker has at least in an evaluation.
    """

    steps_per_epoch: int
    images_per_step: int
    lrs: np.ndarray
    evaluation_steps: int

    @property
    def epochs(self):
        """How many epochs there are; the last may be cut short."""
        return math.ceil(len(self.lrs) / self.steps_per_epoch)

    def steps_of(self, epoch):
        """Return how many steps `epoch` has, which counts from 1."""
        return min(self.steps_per_epoch, len(self.lrs) - self.steps_before(epoch))

    def steps_before(self, epoch):
        """Return how many steps the epochs before `epoch` have."""
        return (epoch - 1) * self.steps_per_epoch


class Monitor:
    """Reads what the steps return in groups, so that a device with its own queue is not stopped at each step.

    Args:
        config (Config): the experiment.
        plan (Plan): steps, images and learning rates of the whole training.
        train_step (TrainStep): its optimiser counts the updates, fewer than the steps where some were skipped.
        reports (Reports, None): where the reports go; None on all workers but the first.
        step (int): steps done before.
        unread (list): (loss, norm of the gradients) of each of those not yet reported.
    """

    def __init__(self, config, plan, train_step, reports, step, unread):
        self._config = config
        self._plan = plan
        self._optimizer, self._scaler = train_step.optimizer, train_step.scaler
        self._reports = reports
        self._step = step
        self._unread = list(unread)
        self._skips_left = config.train.skip_nonfinite
        self._has_compiled = False

    @contextmanager
    def epoch(self, epoch):
        """Around the training steps of `epoch`, which counts from 1."""
        self._epoch = epoch
        self._restart_clock()
        progress = self._reports and self._reports.progress
        if progress:
            progress.begin_epoch(epoch, done=self._step - self._plan.steps_before(epoch))
        try:
            yield
        finally:
            # Also when the epoch fails: the error must not be printed into the bar.
            if progress:
                progress.end_epoch()

    def awaited(self, batches):
        """Yield `batches`, counting the time until each is there."""
        batches = iter(batches)
        while True:
            asked = time.perf_counter()
            batch = next(batches, None)
            self._waited += time.perf_counter() - asked
            if batch is None:
                return
            yield batch

    def after_step(self, loss, norm):
        """Take the loss and the norm of the gradients, scalar Tensors, of the step just launched.

        Raises:
            UserError: a loss since the last report is infinite or not a number.
        """
        self._step += 1
        self._timed_steps += 1
        self._unread.append((loss, norm))
        if self._reports:
            self._reports.progress.advance()
        if not self._has_compiled:
            # The first step compiles the graph; waiting for it keeps that out of the throughput.
            loss.asnumpy()
            self._has_compiled = True
            self._restart_clock()
        step_in_epoch = self._step - self._plan.steps_before(self._epoch)
        if step_in_epoch % self._config.train.log_interval == 0 or step_in_epoch == self._plan.steps_of(self._epoch):
            self._report()

    def unread(self):
        """Return (loss, norm of the gradients) of each step since the last report, as numbers."""
        self._unread = [tuple(_number(value) for value in pair) for pair in self._unread]
        return self._unread

    def after_evaluation(self, kind, result):
        """Report what `evaluate` returned for the weights ("eval"), or their averages ("ema"), after this epoch."""
        if self._reports:
            self._reports.evaluation(kind, {"epoch": self._epoch, "step": self._step, **result})

    def after_epoch(self, paths):
        """Report the weights of the two paths (`path_weights`) after this epoch."""
        if self._reports and paths["alpha"]:
            self._reports.write("paths", {"epoch": self._epoch, "step": self._step, **paths})

    def _restart_clock(self):
        self._started = time.perf_counter()
        self._waited = 0.0
        self._timed_steps = 0

    def _report(self):
        unread, self._unread = self.unread(), []
        seconds = time.perf_counter() - self._started
        updates = int(self._optimizer.global_step.asnumpy()[0])
        lr = float(self._plan.lrs[max(updates, 1) - 1])
        losses = [loss for loss, _ in unread if math.isfinite(loss)]
        norms = [norm for _, norm in unread if math.isfinite(norm)]
        for step, (loss, norm) in enumerate(unread, self._step - len(unread) + 1):
            # With a loss scaler, gradients that overflow now and then are part of the search for the scale.
            if not math.isfinite(loss) or (self._scaler is None and not math.isfinite(norm)):
                self._skips_left -= 1
                if self._skips_left < 0:
                    self._refuse(step, loss, norm, lr)
        is_timed = self._timed_steps > 0
        report = {
            "epoch": self._epoch,
            "step": self._step,
            "loss": _mean(losses),
            "lr": lr,
            "gradient_norm": _mean(norms),
            "skipped": len(unread) - len(norms),
            "loss_scale": None if self._scaler is None else _number(self._scaler.scale_value),
            "images_per_s": self._timed_steps * self._plan.images_per_step / seconds if is_timed else None,
            "data_wait": self._waited / seconds if is_timed else None,
            "memory_gb": peak_memory_gb(self._config.device.target),
        }
        if self._reports:
            steps_left = len(self._plan.lrs) - self._step
            self._reports.train(report, steps_left * seconds / self._timed_steps if is_timed else None)
        self._restart_clock()

    def _refuse(self, step, loss, norm, lr):
        last = RunFolder(self._config.output_dir).last
        raise UserError(
            f"the loss is {loss:g} and the norm of its gradients {norm:g} at step {step} (epoch {self._epoch}, "
            f"learning rate {lr:g}); last checkpoint: {last if last.exists() else 'none yet'}; lower --optimizer.lr "
            "or raise --scheduler.warmup_epochs (or warmup_steps)"
        )


def path_weights(network):
    """Return alpha and beta of each ACmix operator: {"alpha": {layer: value}, "beta": {layer: value}}."""
    values = {parameter.name: parameter for parameter in network.get_parameters()}
    layers = [name.removesuffix(".alpha") for name in values if name.endswith(".alpha")]
    return {
        path: {layer: float(values[f"{layer}.{path}"].asnumpy().item()) for layer in layers}
        for path in ("alpha", "beta")
    }


def _number(value):
    return float(value.asnumpy()) if isinstance(value, ms.Tensor) else value


def _mean(values):
    return sum(values) / len(values) if values else None
