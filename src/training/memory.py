# SPDX-License-Identifier: Apache-2.0
"""How much memory this process needs."""

import resource

import mindspore as ms


def peak_memory_gb(target):
    """Return the most memory used so far in GB: by the process on CPU, on the device for other targets."""
    if target == "CPU":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return ms.runtime.max_memory_allocated() / 1e9
