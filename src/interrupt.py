# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C as Python knows it: MindSpore puts a handler of its own in place, which makes SIGTERM of it."""

import _thread
import signal
import threading


def keep_ctrl_c():
    """Let SIGINT run Python's handler in the main thread, whatever handlers libraries put in place from now on.

    Call it before anything is loaded that starts threads: those from before would still take the signal.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])

    def hand_on():
        while signal.sigwait([signal.SIGINT]):
            _thread.interrupt_main()

    threading.Thread(target=hand_on, daemon=True).start()
