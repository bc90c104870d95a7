# SPDX-License-Identifier: Apache-2.0
"""What a person watching the training sees: a bar on a terminal, plain lines elsewhere."""

import sys
from datetime import timedelta

from tqdm import tqdm


class Progress:
    """Show the course of the training on standard error.

    Args:
        plan (Plan): epochs and steps of the whole training.
    """

    def __init__(self, plan):
        self._plan = plan
        self._is_terminal = sys.stderr.isatty()
        self._bar = None

    def begin_epoch(self, epoch, done):
        """Start the bar of `epoch`, which counts from 1 and of which `done` steps are done."""
        if self._is_terminal:
            title = f"epoch {epoch}/{self._plan.epochs}"
            self._bar = tqdm(
                total=self._plan.steps_of(epoch), initial=done, desc=title, unit="step", dynamic_ncols=True
            )

    def advance(self):
        """Count one step of the epoch."""
        if self._bar:
            self._bar.update()

    def show(self, report, seconds_left):
        """Show a report (the values of a "train" line of the metrics) and the time left, None where unknown."""
        speed = "-" if report["images_per_s"] is None else f"{report['images_per_s']:.1f}"
        left = "-" if seconds_left is None else str(timedelta(seconds=round(seconds_left)))
        loss = "-" if report["loss"] is None else f"{report['loss']:.4f}"
        values = f"loss {loss}  lr {report['lr']:.4g}  {speed} images/s  left {left}"
        if self._bar:
            self._bar.set_postfix_str(values)
        else:
            epoch = report["epoch"]
            step = report["step"] - self._plan.steps_before(epoch)
            self.say(f"epoch {epoch}/{self._plan.epochs}  step {step}/{self._plan.steps_of(epoch)}  {values}")

    def end_epoch(self):
        """Finish the bar."""
        if self._bar:
            self._bar.close()
            self._bar = None

    def say(self, text):
        """Print one line of its own."""
        print(text, file=sys.stderr, flush=True)
