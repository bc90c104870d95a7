# SPDX-License-Identifier: Apache-2.0
"""How much memory this process needs, and whether it is there."""

import resource

import mindspore as ms
import numpy as np
import psutil

from src.errors import UserError


def peak_memory_gb(target):
    """Return the most memory used so far in GB: by the process on CPU, on the device for other targets."""
    if target == "CPU":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return ms.runtime.max_memory_allocated() / 1e9


def have_free(size, what):
    """Have `size` bytes of memory not merely available but free, as MindSpore asks of it before it reads a checkpoint.

    The kernel keeps files for those who read them again, after an epoch over a large data set in nearly all memory, and
    gives them up for memory that is asked for.

    Raises:
        UserError: so much is not available; `what` is said to need it.
    """
    memory = psutil.virtual_memory()
    if memory.available < size:
        raise UserError(
            f"{what} needs {size / 1e9:.1f} GB of memory but {memory.available / 1e9:.1f} GB are available; end other "
            "programs, or use a machine with more"
        )
    if memory.free < size:
        np.ones(size, np.uint8)
