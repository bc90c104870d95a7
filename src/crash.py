# SPDX-License-Identifier: Apache-2.0
"""A library that crashes must not take the message with it: the work is done in a child, which its parent watches."""

import ctypes
import os
import signal
import sys

_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# prctl(2), of which Python knows nothing.
_SET_PARENT_DEATH_SIGNAL = 1


def survive_crashes(message):
    """Go on in a child process; should it crash, print `error: <message>` and leave with exit code 2.

    Otherwise this process leaves with the exit code of the child. MindSpore and libraries write nothing to standard
    error from then on. Call it before anything is loaded that starts threads: it forks, in a millisecond then.
    """
    sys.stdout.flush()
    parent = os.getpid()
    # Until there is somebody to forward them, they wait.
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    child = os.fork()
    if child == 0:
        # They write pages about a damaged file before they raise what says it in a line.
        os.environ["GLOG_v"] = "4"  # noqa: SIM112
        sys.stderr = open(os.dup(2), "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        # Who kills the parent means the work.
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
        return
    for number in _FORWARDED:
        signal.signal(number, lambda number, _: os.kill(child, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if -code in _CRASHES:
        print(f"error: {message}", file=sys.stderr, flush=True)
        code = 2
    # As a shell counts: 128 and the number of the signal.
    os._exit(code if code >= 0 else 128 - code)
