# SPDX-License-Identifier: Apache-2.0
"""The machine that a figure belongs to."""

import os
import platform
from pathlib import Path


def machine():
    """Return the CPU's model, the cores this process may use, and how busy the machine is (load average, 1 minute)."""
    return {"cpu": _cpu_model(), "cores": _cores(), "load_average": round(os.getloadavg()[0], 2)}


def _cpu_model():
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
