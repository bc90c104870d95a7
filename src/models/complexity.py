# SPDX-License-Identifier: Apache-2.0
"""Parameters and multiply-adds of a network, counted as the paper's tables count them."""

import mindspore as ms
from mindspore import nn, ops


def count_parameters(network):
    """Return the number of trainable numbers."""
    return sum(parameter.size for parameter in network.trainable_params())


def count_multiply_adds(network, input_shape):
    """Run the network once, operator by operator, and add up what its convolutions, linear layers and attention need.

    Norms, activations, softmax and additions are left out, as is usual. Attention counts the window's k*k pixels per
    query, not the masked pairs that block matmuls compute beside them.

    Args:
        network (nn.Cell): its Cells count themselves by `multiply_adds(input_shape, output_shape)`, or are
            `nn.Conv2d` or `nn.Dense`.
        input_shape (tuple): (B, C, H, W).

    Returns:
        int: multiply-adds for the whole batch.
    """
    total = 0

    def count(cell, inputs, output):
        nonlocal total
        if isinstance(cell, nn.Conv2d):
            total += output.size * (cell.weight.size // cell.weight.shape[0])
        elif isinstance(cell, nn.Dense):
            total += output.size * cell.in_channels
        else:
            total += cell.multiply_adds(inputs[0].shape, output.shape)

    hooks = [
        cell.register_forward_hook(count)
        for _, cell in network.cells_and_names()
        if isinstance(cell, (nn.Conv2d, nn.Dense)) or hasattr(cell, "multiply_adds")
    ]
    mode = ms.get_context("mode")
    ms.set_context(mode=ms.PYNATIVE_MODE)  # hooks are not part of graphs
    try:
        network(ops.zeros(input_shape, ms.float32))
    finally:
        ms.set_context(mode=mode)
        for hook in hooks:
            hook.remove()
    return total
