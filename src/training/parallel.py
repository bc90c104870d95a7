# SPDX-License-Identifier: Apache-2.0
"""What the workers of a data-parallel job have to agree on beside the gradients."""

import functools
import zlib

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from src.errors import UserError
from src.ops.draws import random_state


class _Sum(nn.Cell):
    def __init__(self):
        super().__init__()
        self.all_reduce = ops.AllReduce()

    def construct(self, values):
        return self.all_reduce(values)


@functools.cache
def _sum():
    return _Sum()  # one, so that each shape compiles once


def sum_over_workers(values, world):
    """Return the element-wise sum over all workers of `values`, a float32 array; every worker has to call it."""
    if world.size == 1:
        return values
    return _sum()(ms.Tensor(values, ms.float32)).asnumpy()


def gather_from_workers(values, world):
    """Return the few `values` of every worker, exactly; every worker has to call it.

    Args:
        values (numpy.ndarray): float64 of any shape, the same on all workers; 48 bits of each are kept.
        world (World): the workers.

    Returns:
        numpy.ndarray: float64 (workers, *shape of values), in the order of their ranks.
    """
    # All devices add float32 and only some float64: a number goes as two of 24 bits, each added to zeros.
    rows = np.zeros((2, world.size, *np.shape(values)), np.float32)
    rows[0, world.rank] = values
    rows[1, world.rank] = values - rows[0, world.rank].astype(np.float64)
    high, low = sum_over_workers(rows, world).astype(np.float64)
    return high + low


def average_norm_statistics(network, world):
    """Give every worker the mean of all workers' BatchNorm moving averages.

    Each worker gathers them from its own images; without this the workers would evaluate different networks, and the
    checkpoint would hold those of one.
    """
    if world.size == 1:
        return
    statistics = [p for p in network.get_parameters() if p.name.endswith(("moving_mean", "moving_variance"))]
    if not statistics:
        return
    values = np.concatenate([parameter.asnumpy().ravel() for parameter in statistics])
    means = np.split(sum_over_workers(values, world) / world.size, np.cumsum([p.size for p in statistics]))
    for parameter, mean in zip(statistics, means):
        parameter.set_data(ms.Tensor(mean.reshape(parameter.shape), ms.float32))


def check_same_weights(network, world):
    """Prove that every worker holds the same parameters, bit for bit; every worker has to call it.

    Raises:
        UserError: they differ, so that this job would train several networks and save one of them. All workers raise.
    """
    own = random_state(network)  # each worker's own, on purpose
    weights = b"".join(p.asnumpy().tobytes() for p in network.get_parameters() if p.name not in own)
    sums = gather_from_workers(zlib.crc32(weights), world)
    astray = np.flatnonzero(sums != sums[0])
    if len(astray):
        raise UserError(
            f"worker(s) {', '.join(map(str, astray))} of {world.size} hold other weights than worker 0; "
            "give every machine the same code, settings and checkpoint (an output_dir that all of them share)"
        )
