# SPDX-License-Identifier: Apache-2.0
"""Being told to stop, by SIGTERM as preemptible nodes are or by Ctrl-C: the run ends at the next step, all saved."""

import signal
from contextlib import contextmanager


class StopRequest:
    """Whether this process has been asked to stop.

    Attributes:
        signal (int | None): SIGTERM or SIGINT, whichever came first since `listen` was entered.
    """

    def __init__(self):
        self.signal = None

    @property
    def is_made(self):
        return self.signal is not None

    @contextmanager
    def listen(self):
        """Take the two as requests inside the block, instead of dying of them; a second Ctrl-C ends the block at once.

        Raises:
            KeyboardInterrupt: the second one.
        """

        def note(number, frame):
            if number == self.signal == signal.SIGINT:
                raise KeyboardInterrupt
            self.signal = self.signal or number

        before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
