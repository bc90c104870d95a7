# SPDX-License-Identifier: Apache-2.0
"""Where the reports of a run go: `metrics.jsonl`, TensorBoard events, and the person who watches."""

import time

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar

from src.config import save_config
from src.errors import UserError
from src.training.metrics import MetricsLog
from src.training.progress import Progress


class Reports:
    """The three of them as one.

    Args:
        config (Config): the experiment.
        folder (RunFolder): gets `metrics.jsonl`, `config.yaml`, `events.*` and perhaps `pretrained.txt`.
        plan (Plan): epochs and steps of the whole training.
        told: an evaluation's numbers in words, see `Task.told`.
    """

    def __init__(self, config, folder, plan, told):
        self.config, self.folder, self.told = config, folder, told
        self.progress = Progress(plan)

    def begin(self, checkpoint, lines, state, loaded=None):
        """Say `lines` and from where the run goes on, put an earlier one aside, and write down what this one is.

        `loaded` is what it began with (`Loaded`), if it does begin.
        """
        say = self.progress.say
        for line in lines:
            say(line)
        if checkpoint:
            say(f"resuming from {checkpoint} after epoch {state['epoch']}, step {state['step']}")
        if checkpoint not in self.folder.kept and (aside := self.folder.set_earlier_run_aside()):
            say(f"moved the earlier run in {self.folder.path} to {aside}; --resume auto would have continued it")
        save_config(self.config, self.folder.config)
        if loaded:
            loaded.write(self.folder.pretrained)
        elif not checkpoint:
            self.folder.pretrained.unlink(missing_ok=True)
        self.metrics = MetricsLog(self.folder.metrics, state["epoch"], state["step"])
        self.events = EventsWriter(str(self.folder.path / "events"))
        # Tells TensorBoard that what an earlier file says of steps from here on is void.
        self._add_event(state["step"] + 1, session_log=SessionLog(status=SessionLog.START))

    def train(self, report, seconds_left):
        """Report the steps since the last report."""
        self.write("train", report)
        self.progress.show(report, seconds_left)

    def evaluation(self, kind, report):
        """Report an evaluation of the weights ("eval") or of their averages ("ema")."""
        self.write(kind, report)
        of = {"eval": "", "ema": " of the averages"}[kind]
        self.progress.say(f"epoch {report['epoch']}  validation{of}: {self.told(report)}  ({report['samples']} images)")

    def write(self, kind, report):
        """Add a line to the metrics, and its numbers to the events as KIND/NAME."""
        self.metrics.write(kind, report)
        numbers = _numbers(kind, {k: v for k, v in report.items() if k not in ("epoch", "step")})
        try:
            for name, value in numbers:
                self._add_event(report["step"], summary=scalar(name, value))
            self.events.flush()
        except OSError as error:
            raise UserError(f"cannot write {self.folder.path / 'events'}.*: {error.strerror}") from error

    def _add_event(self, step, **content):
        # Not `SummaryWriter`: its thread waits for ever where the clock is set back.
        self.events.write_event(Event(wall_time=time.time(), step=step, **content))


def _numbers(name, value):
    """Yield (NAME/KEY/..., number) for each number in nested dicts."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _numbers(f"{name}/{key}", part)
    elif value is not None:
        yield name, value
