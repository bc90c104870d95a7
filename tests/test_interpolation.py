# SPDX-License-Identifier: Apache-2.0
"""Interpolation against PyTorch's, and by what holds for any rule."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.ops.interpolation import cubic, interpolated, interpolation, linear

LENGTHS = st.integers(1, 40)
KERNELS = st.sampled_from([linear, cubic])


@given(LENGTHS, LENGTHS, KERNELS)
def test_what_holds_for_any_lengths(old, new, kernel):
    """Constants stay, left and right are alike, and a length is left as it is by itself."""
    weights = interpolation(old, new, kernel)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(weights[::-1, ::-1], weights, atol=1e-12)
    np.testing.assert_allclose(interpolation(old, old, kernel), np.eye(old), atol=1e-12)


@given(st.integers(4, 20), st.integers(2, 4), KERNELS)
def test_straight_lines_stay_straight(old, times, kernel):
    """Inside, where the border is not seen: PyTorch's cubic too gives back a line, at half the steps between."""
    new = old * times
    place = (np.arange(new) + 0.5) / times - 0.5
    inside = (place >= 1) & (place < old - 2)
    if kernel is cubic:
        inside &= np.isclose(place % 0.5, 0)
    np.testing.assert_allclose((interpolation(old, new, kernel) @ np.arange(old))[inside], place[inside], atol=1e-9)


@pytest.mark.parametrize(("kernel", "mode"), [(linear, "bilinear"), (cubic, "bicubic")])
@pytest.mark.parametrize(
    ("old", "new"), [((13, 13), (23, 23)), ((23, 23), (13, 13)), ((7, 4), (5, 9)), ((1, 3), (4, 2)), ((2, 2), (9, 3))]
)
def test_as_pytorch(kernel, mode, old, new):
    """The published codes call `interpolate`, larger and smaller, with borders that reach beyond the map."""
    torch = pytest.importorskip("torch")
    grid = np.random.default_rng(0).standard_normal((*old, 3)).astype(np.float32)
    maps = torch.from_numpy(grid.transpose(2, 0, 1)[None])
    expected = torch.nn.functional.interpolate(maps, size=new, mode=mode, align_corners=False).numpy()
    result = interpolated(grid, new, kernel)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result.transpose(2, 0, 1)[None], expected, atol=1e-5)
