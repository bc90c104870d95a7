# SPDX-License-Identifier: Apache-2.0
"""The machine that a figure belongs to."""

import os
import platform
import subprocess
from pathlib import Path


def machine():
    """Return the models of CPU and NVIDIA GPUs, the cores this process may use, and the load average of a minute."""
    load = round(os.getloadavg()[0], 2)
    return {"cpu": _cpu_model(), "cores": cores(), "gpu": _gpu_models(), "load_average": load}


def machine_text(here, target):
    """Name the part of a `machine()` that a figure of the device `target` depends on."""
    gpu = [here["gpu"]] if target == "GPU" and here.get("gpu") else []
    return ", ".join([*gpu, here["cpu"], f"{here['cores']} cores"])


def _cpu_model():
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _gpu_models():
    """Return names joined by commas, none where the driver's tool is missing or fails."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return ""
    return ", ".join(found.stdout.splitlines()) if found.returncode == 0 else ""


def cores():
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
