# SPDX-License-Identifier: Apache-2.0
"""Geometry and losses of boxes, for any network. Boxes are x1, y1, x2, y2 in pixels, continuous: x2 - x1 wide."""
