# SPDX-License-Identifier: Apache-2.0
"""What the workers of a data-parallel job have to agree on beside the gradients."""

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
