# SPDX-License-Identifier: Apache-2.0
"""What the families have in common: four maps, each half the size of the one before."""

from typing import NamedTuple

from mindspore import nn


class Feature(NamedTuple):
    """A map's channels, and by how much it is smaller than the image."""

    channels: int
    stride: int


class Backbone(nn.Cell):
    """A network of four stages: images to logits, or with `features_only` to the maps that the stages end with.

    Attributes:
        feature_info: a `Feature` for each of the four maps.
        head_name: name of the linear layer that makes the logits.
    """

    head_name = "fc"

    def __init__(self, channels, stride, features_only):
        """Take the `channels` of the four maps, and the `stride` of the first."""
        super().__init__()
        self.features_only = features_only
        self.feature_info = tuple(Feature(count, stride << stage) for stage, count in enumerate(channels))

    def layers(self):
        """Return tuples of Cells from the image to the logits: stem, each block, head; a classifier's parameters, once.

        What lies between two blocks belongs to the block it leads to, and what follows the last block to the head.
        """
        raise NotImplementedError
