# SPDX-License-Identifier: Apache-2.0
"""Parameters whose shape depends on the image size, when weights of another image size are loaded."""


def resizers(network):
    """Return how to bring what depends on the image size to that of a network.

    A Cell with such a parameter, a table of positions, calls it `position` and has a method `resized`.

    Args:
        network (nn.Cell): a network of `src.models`.

    Returns:
        dict: parameter name -> `resized(array)`, which returns the array, of any image size, for that of the network.
    """
    return {cell.position.name: cell.resized for _, cell in network.cells_and_names() if hasattr(cell, "resized")}
