# SPDX-License-Identifier: Apache-2.0
"""Anchors as constants of a network's graph."""

import numpy as np
from mindspore import Tensor, ops

from src.boxes.anchors import octave_scales, pyramid_anchors

OCTAVE_SCALES = tuple(octave_scales())  # of RetinaNet
PROPOSAL_SCALES = (8,)
RATIOS = (0.5, 1.0, 2.0)


@ops.constexpr
def level_anchors(strides, sizes, scales, ratios):
    """Return a tuple of (h * w * A, 4), see `pyramid_anchors`."""
    return tuple(Tensor(anchors) for anchors in pyramid_anchors(strides, sizes, scales, ratios))


@ops.constexpr
def whole_size(shape):
    """Return the height and width of each of the images (B, C, H, W), float32 (B, 2)."""
    return Tensor(np.tile(np.float32(shape[2:]), (shape[0], 1)))
