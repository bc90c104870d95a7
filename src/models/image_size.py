# SPDX-License-Identifier: Apache-2.0
"""Parameters whose shape depends on the image size or the window, when weights of others are loaded."""


def resizers(network):
    """Return how to bring what depends on the image size or the window to those of a network.

    A Cell with such a parameter, a table, calls it `position` and has a method `resized`.

    Args:
        network (nn.Cell): a network of `src.models`.

    Returns:
        dict: parameter name -> `resized(table, image_size)`, which returns a table made for `image_size` (see
        `src.image_size`; None: not known) for the network: the table itself where it fits or is no such table. It
        raises ValueError where it cannot tell what the table is of.
    """
    return {cell.position.name: cell.resized for _, cell in network.cells_and_names() if hasattr(cell, "resized")}
