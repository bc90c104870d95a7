# SPDX-License-Identifier: Apache-2.0
"""Follow the losses of the training: refuse ones that are not finite, report every few steps."""

import math
import time
from contextlib import contextmanager

from src.errors import UserError


class Monitor:
    """Reads the loss of each step, in groups, so that a device with its own queue is not stopped at each step.

    Args:
        lrs (numpy.ndarray): (steps,), the learning rate of each step of the whole training.
        steps_per_epoch (int): training steps an epoch.
        images_per_step (int): images of all workers together.
        log_interval (int): steps between reports; the last step of an epoch always reports.
        last_checkpoint (Path): the file to name when the loss is lost.
        metrics (MetricsLog, None), progress (Progress, None): where the reports go; None on all workers but the first.
    """

    def __init__(self, lrs, steps_per_epoch, images_per_step, log_interval, last_checkpoint, metrics, progress):
        self._lrs = lrs
        self._steps_per_epoch = steps_per_epoch
        self._images_per_step = images_per_step
        self._log_interval = log_interval
        self._last_checkpoint = last_checkpoint
        self._metrics = metrics
        self._progress = progress
        self._has_compiled = False
        self._unread = []

    @contextmanager
    def epoch(self, epoch):
        """Around the training steps of `epoch`, which counts from 1."""
        self._epoch = epoch
        self._step = (epoch - 1) * self._steps_per_epoch
        self._restart_clock()
        if self._progress:
            self._progress.begin_epoch(epoch)
        try:
            yield
        finally:
            # Also when the epoch fails: the error must not be printed into the bar.
            if self._progress:
                self._progress.end_epoch()

    def after_step(self, loss):
        """Take the loss, a scalar Tensor, of the step just launched.

        Raises:
            UserError: a loss since the last report is infinite or not a number.
        """
        self._step += 1
        self._timed_steps += 1
        self._unread.append(loss)
        if self._progress:
            self._progress.advance()
        if not self._has_compiled:
            # The first step compiles the graph; waiting for it keeps that out of the throughput.
            loss.asnumpy()
            self._has_compiled = True
            self._restart_clock()
        step_in_epoch = self._step - (self._epoch - 1) * self._steps_per_epoch
        if step_in_epoch % self._log_interval == 0 or step_in_epoch == self._steps_per_epoch:
            self._report()

    def after_evaluation(self, result):
        """Report what `evaluate` returned for the epoch just trained."""
        if self._metrics:
            self._metrics.write("eval", {"epoch": self._epoch, "step": self._step, **result})
        if self._progress:
            self._progress.say(
                f"epoch {self._epoch}  validation: top-1 {result['top1']:.2f} %  top-5 {result['top5']:.2f} %  "
                f"loss {result['loss']:.4f}  ({result['samples']} images)"
            )

    def _restart_clock(self):
        self._started = time.perf_counter()
        self._timed_steps = 0

    def _report(self):
        losses = [float(loss.asnumpy()) for loss in self._unread]
        self._unread = []
        seconds = time.perf_counter() - self._started
        for step, loss in enumerate(losses, start=self._step - len(losses) + 1):
            if not math.isfinite(loss):
                saved = self._last_checkpoint if self._last_checkpoint.exists() else "none yet"
                raise UserError(
                    f"the loss is {loss} at step {step} (epoch {self._epoch}, learning rate {self._lrs[step - 1]:g}); "
                    f"last checkpoint: {saved}; lower --optimizer.lr or raise --scheduler.warmup_epochs"
                )
        is_timed = self._timed_steps > 0
        report = {
            "epoch": self._epoch,
            "step": self._step,
            "loss": sum(losses) / len(losses),
            "lr": float(self._lrs[self._step - 1]),
            "images_per_s": self._timed_steps * self._images_per_step / seconds if is_timed else None,
        }
        steps_left = len(self._lrs) - self._step
        if self._metrics:
            self._metrics.write("train", report)
        if self._progress:
            self._progress.show(report, steps_left * seconds / self._timed_steps if is_timed else None)
        self._restart_clock()
