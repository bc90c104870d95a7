# SPDX-License-Identifier: Apache-2.0
"""The geometry of the sliding window, in NumPy alone."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from src.ops.neighbourhood import OUTSIDE, axis_blocks, reflect, window_blocks

SIZES = st.integers(1, 40)
KERNELS = st.sampled_from((1, 3, 5, 7, 9))


@given(size=SIZES, pad=st.integers(0, 60))
def test_reflection_is_that_of_numpy(size, pad):
    """Folding indices must equal padding by reflection, also where the padding is wider than the map."""
    assert np.array_equal(reflect(np.arange(-pad, size + pad), size), np.pad(np.arange(size), pad, mode="reflect"))


@given(size=SIZES, kernel=KERNELS, stride=st.integers(1, 3), dilation=st.integers(1, 3), block=st.integers(1, 16))
def test_counts_are_those_of_the_padded_window(size, kernel, stride, dilation, block):
    """Each query must see each pixel exactly as often as its window in the padded axis holds it."""
    axis = axis_blocks(size, kernel, stride, dilation, block)
    pad = dilation * (kernel // 2)
    padded = np.pad(np.arange(size), pad, mode="reflect")
    n, length, _ = axis.count.shape
    for query in range(-(-size // stride)):
        window = padded[query * stride : query * stride + 2 * pad + 1 : dilation]
        expected = np.bincount(window, minlength=size)
        counted = np.zeros(size, int)
        np.add.at(counted, axis.key[query // length], axis.count[query // length, query % length])
        assert np.array_equal(counted, expected)
    assert n * length >= -(-size // stride)


@settings(max_examples=60)
@given(height=SIZES, width=SIZES, kernel=KERNELS, stride=st.integers(1, 3), dilation=st.integers(1, 2))
def test_places_are_the_inverse_of_the_gather(height, width, kernel, stride, dilation):
    """The gradient adds up copies by `places`: it must find every attended copy of a pixel once, and no other."""
    blocks = window_blocks(height, width, kernel, stride, dilation, 16)
    n_r, t_r, n_c, t_c = blocks.grid
    features = blocks.query_features.shape[1]
    logits = np.einsum("qf,nsf->nqs", blocks.query_features, blocks.key_features[..., :features])
    attended = (logits > OUTSIDE / 2).any(axis=1).reshape(-1)
    assert (n_r * t_r, n_c * t_c) >= (-(-height // stride), -(-width // stride))
    found = np.zeros(len(blocks.key), int)
    for places in blocks.places:
        real = attended[places]
        assert np.array_equal(blocks.key[places][real], np.arange(height * width)[real])
        np.add.at(found, places[real], 1)
    assert np.array_equal(found, attended.astype(int))


def test_a_small_map_is_one_block_without_spare_keys():
    """Maps of one block, as the 7x7 of a ResNet's last stage, must not pay for a border."""
    blocks = window_blocks(7, 7, 7, 1, 1, 128)
    assert blocks.grid == (1, 7, 1, 7)
    assert np.array_equal(blocks.key, np.arange(49))


def test_outside_survives_float16():
    """Row and column bias add up: twice the value for pixels outside must not overflow half precision."""
    assert np.isfinite(np.float16(2 * OUTSIDE))
    assert np.exp(np.float32(OUTSIDE)) == 0
