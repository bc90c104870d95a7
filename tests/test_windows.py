# SPDX-License-Identifier: Apache-2.0
"""Windows over an image: each pixel covered, none outside, answers put together where they came from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.data.windows import Windows, usual_stride


@st.composite
def covers(draw):
    """The size of an image, of windows, and their stride."""
    sides = st.tuples(st.integers(1, 40), st.integers(1, 40))
    size, window = draw(sides), draw(sides)
    return size, window, tuple(draw(st.integers(1, side)) for side in window)


@given(covers())
def test_what_is_cut_comes_together_again(cover):
    """Windows of one size, all inside of the padded image; the answers to an image that is its own answer are it."""
    size, window, _ = cover
    windows = Windows(*cover)
    image = np.random.default_rng(0).standard_normal((2, *size)).astype(np.float32)
    parts = list(windows.cut(image))
    assert {part.shape for part in parts} == {(2, *window)}
    np.testing.assert_allclose(windows.averaged(parts), image, atol=1e-5)
    np.testing.assert_array_equal(windows.nearest(part[1] for part in parts), image[1])
    assert not parts[-1][:, size[0] :].any() and not parts[-1][..., size[1] :].any()


@given(covers())
def test_places_are_the_reference_s(cover):
    """Where windows lie is what mmsegmentation's slide_inference counts out, for images that are no smaller."""
    size, window, stride = cover
    size = tuple(map(max, size, window))
    expected = []
    for row, column in np.ndindex(*(-(-max(a - b, 0) // c) + 1 for a, b, c in zip(size, window, stride))):
        ends = [min(k * step + side, whole) for k, step, side, whole in zip((row, column), stride, window, size)]
        expected.append(tuple(end - side for end, side in zip(ends, window)))
    assert Windows(size, window, stride).places == expected


def test_overlaps():
    """Logits are averaged where windows overlap; of classes, that of the window in whose middle the pixel lies."""
    windows = Windows((1, 7), (1, 5), (1, 3))
    assert windows.places == [(0, 0), (0, 2)]
    answers = [np.full((1, 1, 5), number, np.float32) for number in (1, 3)]
    np.testing.assert_array_equal(windows.averaged(answers), [[[1, 1, 2, 2, 2, 3, 3]]])
    wide = Windows((5, 9), (5, 6), (1, 3))
    classes = wide.nearest(np.full((5, 6), number) for number in (1, 2))
    np.testing.assert_array_equal(classes[2], [1, 1, 1, 1, 1, 2, 2, 2, 2])


def test_strides():
    """Two thirds of a window, as published; one that leaves pixels out is an error."""
    assert usual_stride((512, 512)) == (341, 341) and usual_stride((1, 3)) == (1, 2)
    with pytest.raises(ValueError, match=r"stride of \(4, 5\) does not cover"):
        Windows((9, 9), (4, 4), (4, 5))
