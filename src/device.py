# SPDX-License-Identifier: Apache-2.0
"""Choosing the device, and joining a data-parallel job."""

import logging
import os
from dataclasses import dataclass

# Both are read when MindSpore loads, so this module is imported before it; a user's own value wins.
# oneDNN's choice of AVX-512 kernel for k x k convolutions is its reference one, up to 150 times slower.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
# The data module logs three lines for each unreadable image, which our own message names in one.
os.environ.setdefault("MS_SUBMODULE_LOG_v", "{MD:4}")

import mindspore as ms
from mindspore.communication import get_group_size, get_rank, init

from src.errors import UserError


@dataclass(frozen=True)
class World:
    """This process among the workers of a data-parallel job: `rank` of `size`."""

    rank: int = 0
    size: int = 1


def setup_device(config):
    """Select graph mode and the device of a `DeviceConfig`; under `msrun` or `mpirun`, join the job.

    Returns:
        World: rank and number of the workers; `World(0, 1)` when launched alone.

    Raises:
        UserError: this MindSpore has no backend for the device, or the machine does not have it.
    """
    ms.set_context(mode=ms.GRAPH_MODE)
    local_rank = os.environ.get("OMPI_COMM_WORLD_LOCAL_RANK", config.device_id)
    device = int(os.environ.get("DEVICE_ID", local_rank))  # msrun gives each worker its own
    logging.disable(logging.CRITICAL)  # what MindSpore lists of a missing backend says less than the line below
    try:
        if config.target == "CPU":
            ms.set_device("CPU")
        else:
            ms.set_device(config.target, device)
    except (RuntimeError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0].split(". ")[0]
        raise UserError(
            f"no usable {config.target} device {device} here ({reason}); "
            f"install MindSpore for {config.target} and its driver, or choose another with --device_target CPU"
        ) from error
    finally:
        logging.disable(logging.NOTSET)
    if not _is_part_of_a_job():
        return World()
    init()
    world = World(get_rank(), get_group_size())
    ms.set_auto_parallel_context(
        parallel_mode=ms.ParallelMode.DATA_PARALLEL, gradients_mean=True, device_num=world.size
    )
    return world


def _is_part_of_a_job():
    # MS_ROLE: of msrun, whose scheduler runs the script too and serves the workers from inside `init()`.
    return any(name in os.environ for name in ("MS_ROLE", "OMPI_COMM_WORLD_SIZE", "RANK_TABLE_FILE"))
