# SPDX-License-Identifier: Apache-2.0
"""Folding a trained network for deployment: the same function of an image, by fewer operators."""

import copy

import src.deploy.folding.mix  # noqa: F401  its rules
from src.deploy.folding.norms import folded


def fold(network):
    """Return a network for evaluation that computes the same logits to rounding; `network` stays as it is.

    Batch norms, and the numbers alpha and beta, become part of weights, `fc` and the shift one convolution, positions
    constants. Stochastic depth is gone. What is left has parameters with names of their own and cannot be trained.

    Args:
        network (nn.Cell): of `src.models`; its statistics are those it evaluates with.

    Raises:
        ValueError: from MindSpore, when the graph is compiled, as of the network itself.
    """
    twin = copy.deepcopy(network)
    for _, cell in twin.cells_and_names():
        # A copied record of compiled graphs would have the original's thrown away with the copy.
        cell._compile_cache = None
    twin = folded(twin)
    for name, parameter in twin.parameters_and_names():
        parameter.name = name
    return twin.set_train(False)
