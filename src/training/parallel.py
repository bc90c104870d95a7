# SPDX-License-Identifier: Apache-2.0
"""What the workers of a data-parallel job have to agree on beside the gradients."""

import zlib

import mindspore as ms
import numpy as np
from mindspore import nn, ops


class _Sum(nn.Cell):
    def __init__(self):
        super().__init__()
        self.all_reduce = ops.AllReduce()

    def construct(self, values):
        return self.all_reduce(values)


def sum_over_workers(values, world):
    """Return the element-wise sum over all workers of `values`, a float32 array; every worker has to call it."""
    if world.size == 1:
        return values
    return _Sum()(ms.Tensor(values, ms.float32)).asnumpy()


def average_norm_statistics(network, world):
    """Give every worker the mean of all workers' BatchNorm moving averages.

    Each worker gathers them from its own images; without this the workers would evaluate different networks, and the
    checkpoint would hold those of one.
    """
    if world.size == 1:
        return
    statistics = [p for p in network.get_parameters() if p.name.endswith(("moving_mean", "moving_variance"))]
    values = np.concatenate([parameter.asnumpy().ravel() for parameter in statistics] or [np.zeros(1, np.float32)])
    means = np.split(sum_over_workers(values, world) / world.size, np.cumsum([p.size for p in statistics]))
    for parameter, mean in zip(statistics, means):
        parameter.set_data(ms.Tensor(mean.reshape(parameter.shape), ms.float32))


def check_same_weights(network, world):
    """Prove that every worker holds the same parameters, bit for bit; every worker has to call it.

    Raises:
        RuntimeError: they differ, so that this job trains several networks and saves one of them.
    """
    if world.size == 1:
        return
    weights = b"".join(parameter.asnumpy().tobytes() for parameter in network.get_parameters())
    # Byte by byte, because a float32 sum is exact for small numbers only.
    digest = np.frombuffer(zlib.crc32(weights).to_bytes(4, "little"), np.uint8).astype(np.float32)
    if not np.array_equal(sum_over_workers(digest, world), world.size * digest):
        raise RuntimeError(f"worker {world.rank} of {world.size} has other weights than the rest")
