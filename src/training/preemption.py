# SPDX-License-Identifier: Apache-2.0
"""Being told to stop, as preemptible nodes are: SIGTERM ends the run at the next step, with everything saved."""

import signal
from contextlib import contextmanager


class StopRequest:
    """Whether this process has been asked to stop.

    Attributes:
        is_made (bool): SIGTERM has come since `listen` was entered.
    """

    def __init__(self):
        self.is_made = False

    @contextmanager
    def listen(self):
        """Take SIGTERM as a request inside the block, instead of dying of it."""

        def note(number, frame):
            self.is_made = True

        before = signal.signal(signal.SIGTERM, note)
        try:
            yield self
        finally:
            signal.signal(signal.SIGTERM, before)
