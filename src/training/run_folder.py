# SPDX-License-Identifier: Apache-2.0
"""The output folder of a run: `config.yaml metrics.jsonl last.ckpt last-1.ckpt best.ckpt curves.png events.*`.

Where it began with weights of another training there is `pretrained.txt`, too: which of them it took. A task may keep
what was found in the last evaluation in `results`.
"""

import fcntl
import itertools
import os
import socket
from contextlib import contextmanager
from pathlib import Path

from src.errors import UserError
from src.training.atomic import remove_leftovers, replacing


class RunFolder:
    """The paths of a run's files, and whose folder it is.

    Args:
        output_dir: the folder.
        keep (int): how many of the newest checkpoints stay: `last.ckpt`, and before it `last-1.ckpt`, `last-2.ckpt`...
    """

    def __init__(self, output_dir, keep=2):
        self.path = Path(output_dir)
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.jsonl"
        self.last = self.path / "last.ckpt"
        self.best = self.path / "best.ckpt"
        self.curves = self.path / "curves.png"
        self.pretrained = self.path / "pretrained.txt"
        self.results = self.path / "results"
        self.kept = [self.last, *(self.path / f"last-{age}.ckpt" for age in range(1, keep))]

    @contextmanager
    def taken(self):
        """Create the folder, keep other runs out of it inside the block, sweep out what killed runs left half written.

        Raises:
            UserError: it cannot be created or written, or another run is writing to it.
        """
        # The kernel lets go of the lock however the process ends.
        with self._open_lock() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                lock.seek(0)
                raise UserError(
                    f"another run ({lock.read() or 'unknown'}) is writing to output folder {self.path}; wait for it, "
                    "or choose another with --output_dir"
                ) from error
            lock.truncate(0)
            print(f"process {os.getpid()} on {socket.gethostname()}", end="", file=lock, flush=True)
            remove_leftovers(self.path)
            remove_leftovers(self.results)
            yield

    def _open_lock(self):
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            return open(self.path / ".lock", "a+", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"cannot write output folder {self.path} ({error.strerror}); choose another with --output_dir"
            ) from error

    def checkpoints_to_resume(self, resume):
        """Return the checkpoints that `resume` (None, "auto" or a path, see `trainer.train`) means, newest first.

        For "auto" those after the first serve if the ones before them are damaged.
        """
        if resume == "auto":
            return [path for path in self.kept if path.exists()]
        if not resume:
            return []
        return [self.last if Path(resume).resolve() == self.last.resolve() else Path(resume)]

    def make_room(self):
        """Let `last.ckpt`, and those before it, grow one older; `last.ckpt` itself stays until it is replaced."""
        for newer, older in reversed(list(zip(self.kept, self.kept[1:]))):
            if newer is not self.last and newer.exists():
                os.replace(newer, older)
            elif newer.exists():
                with replacing(older) as link:
                    os.link(newer, link)

    def set_earlier_run_aside(self):
        """Move the files of an earlier run to `previous-N`: starting anew by mistake must not cost days of training.

        Returns:
            Path: the new folder, or None if there was no earlier run.
        """
        if not self.last.exists():
            return None
        names = (self.path / f"previous-{number}" for number in itertools.count(1))
        aside = next(name for name in names if not name.exists())
        aside.mkdir()
        events = self.path.glob("events.*")
        own = self.config, self.metrics, self.best, self.curves, self.pretrained, self.results
        for file in (*own, *self.path.glob("last*.ckpt"), *events):
            if file.exists():
                file.rename(aside / file.name)
        return aside
