# SPDX-License-Identifier: Apache-2.0
"""What heads on anchors have in common."""

STD = 0.01  # of their initial weights, which are normal


def by_anchor(x, numbers):
    """(B, A * numbers, h, w) -> (B, h * w * A, numbers), in the order of `src.boxes.anchors`."""
    return x.transpose(0, 2, 3, 1).reshape(x.shape[0], -1, numbers)
