# SPDX-License-Identifier: Apache-2.0
"""Statistics for the batch norms of a network that was never trained."""

import mindspore as ms
import numpy as np
from mindspore import nn, ops


def settle(network, shape):
    """Give the batch norms the statistics of one batch of noise, of this shape; leaves evaluation mode on.

    With those it starts with, maps grow from block to block, and with them the logits of attention, until its softmax
    computes with denormal numbers, as that of a trained network does not; CPUs need ten times as long for them.
    """
    norms = [cell for _, cell in network.cells_and_names() if isinstance(cell, nn.BatchNorm2d)]
    for norm in norms:
        norm.bn_train, norm.gradual = ops.BatchNorm(True, norm.eps, 1.0), norm.bn_train
    mode = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)  # a graph would take longer to compile than to run once
    try:
        network.set_train()(ms.Tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32)))
    finally:
        ms.set_context(mode=mode)
        network.set_train(False)
        for norm in norms:
            norm.bn_train = norm.gradual
