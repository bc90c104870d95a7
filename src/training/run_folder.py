# SPDX-License-Identifier: Apache-2.0
"""The output folder of a run: `config.yaml metrics.jsonl last.ckpt best.ckpt curves.png`."""

import itertools
import os
from pathlib import Path

from src.errors import UserError
from src.training.atomic import remove_leftovers


class RunFolder:
    """The paths of a run's files."""

    def __init__(self, output_dir):
        self.path = Path(output_dir)
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.jsonl"
        self.last = self.path / "last.ckpt"
        self.best = self.path / "best.ckpt"
        self.curves = self.path / "curves.png"

    def prepare(self):
        """Create the folder, sweep out what killed runs left half written, and prove that it can be written.

        Raises:
            UserError: it cannot be created or written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.path)
            probe = self.path / f".probe-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"cannot write output folder {self.path} ({error.strerror}); choose another with --output_dir"
            ) from error

    def checkpoint_to_resume(self, resume):
        """Return the checkpoint that `resume` (None, "auto" or a path, see `trainer.train`) means, or None."""
        if resume == "auto":
            return self.last if self.last.exists() else None
        if not resume:
            return None
        return self.last if Path(resume).resolve() == self.last.resolve() else Path(resume)

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
        for file in (self.config, self.metrics, self.last, self.best, self.curves):
            if file.exists():
                file.rename(aside / file.name)
        return aside
