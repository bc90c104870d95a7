# SPDX-License-Identifier: Apache-2.0
"""Choosing the device, and joining a data-parallel job."""

import logging
import os
import socket
import sys
from dataclasses import dataclass

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

    In MindSpore's simulation (`MS_SIMULATION_LEVEL`), which needs no device, be rank `RANK_ID` of `RANK_SIZE`.

    Returns:
        World: rank and number of the workers; `World(0, 1)` when launched alone.

    Raises:
        UserError: this MindSpore has no backend for the device, the machine does not have it, or the job was launched
            in a way that MindSpore does not take.
    """
    ms.set_context(mode=ms.GRAPH_MODE)
    local_rank = _local_rank(config.target)
    device = config.device_id if local_rank is None else local_rank
    _select(config.target, device)
    if local_rank is None:
        return World()
    # The launcher finds the log of a dead process by this line.
    print(f"process {os.getpid()} on {socket.gethostname()}, {config.target} device {device}", file=sys.stderr)
    init()
    world = World(get_rank(), get_group_size())
    ms.set_auto_parallel_context(
        parallel_mode=ms.ParallelMode.DATA_PARALLEL,
        gradients_mean=True,
        device_num=world.size,
        # Otherwise each parameter has a collective of its own. On CPU a fused one gives what is a little off.
        comm_fusion={} if config.target == "CPU" else {"allreduce": {"mode": "auto", "config": None}},
    )
    return world


def _local_rank(target):
    """Return this worker's number among those of its machine, from 0; None for a process on its own."""
    is_simulated = "MS_SIMULATION_LEVEL" in os.environ and "RANK_SIZE" in os.environ
    if "MS_ROLE" in os.environ or is_simulated:
        # The scheduler of msrun runs the script too, without a device, and serves the workers from inside `init()`.
        return int(os.environ.get("DEVICE_ID", 0))
    if "RANK_TABLE_FILE" in os.environ:
        raise UserError(
            "RANK_TABLE_FILE is set, but MindSpore takes a rank table from msrun only; start the job by "
            "scripts/run_distribute_train_ascend.sh --rank_table_file FILE, or unset RANK_TABLE_FILE"
        )
    is_of_mpirun = "OMPI_COMM_WORLD_SIZE" in os.environ
    if is_of_mpirun and target == "CPU":
        raise UserError("mpirun starts jobs on Ascend and GPU only; use scripts/run_distribute_train_cpu.sh")
    return int(os.environ["OMPI_COMM_WORLD_LOCAL_RANK"]) if is_of_mpirun else None


def _select(target, device):
    logging.disable(logging.CRITICAL)  # what MindSpore lists of a missing backend says less than the line below
    try:
        if target == "CPU":
            ms.set_device("CPU")
        else:
            ms.set_device(target, device)
    except (RuntimeError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0].split(". ")[0]
        raise UserError(
            f"no usable {target} device {device} here ({reason}); "
            f"install MindSpore for {target} and its driver, or choose another with --device_target CPU"
        ) from error
    finally:
        logging.disable(logging.NOTSET)
