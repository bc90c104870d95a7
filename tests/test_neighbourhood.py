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
    logits = np.einsum("qf,nsf->nqs", blocks.query_features, blocks.key_features)
    attended = (logits > OUTSIDE / 2).any(axis=1).reshape(-1)
    found = np.zeros(len(blocks.key), int)
    for places in blocks.key_places:
        real = attended[places]
        assert np.array_equal(blocks.key[places][real], np.arange(height * width)[real])
        np.add.at(found, places[real], 1)
    assert np.array_equal(found, attended.astype(int))


@settings(max_examples=60)
@given(height=SIZES, width=SIZES, kernel=KERNELS, stride=st.integers(1, 3))
def test_every_output_has_its_query(height, width, kernel, stride):
    """Results are joined by `output`: it must find the query at each place, and the inverses must lead back."""
    blocks = window_blocks(height, width, kernel, stride, 1, 16)
    wanted = np.arange(height * width).reshape(height, width)[::stride, ::stride].reshape(-1)
    assert np.array_equal(blocks.query[blocks.output], wanted)
    assert len(blocks.query) == blocks.count * len(blocks.query_features)
    # Forward: each query's slot; a slot or a pixel without one points at a gap, or at a slot that nobody joins.
    (slots,) = blocks.query_places
    assert np.array_equal(slots[wanted], blocks.output)
    assert not np.isin(np.delete(slots, wanted), blocks.output).any()
    (places,) = blocks.output_places
    assert np.array_equal(places[blocks.output], np.arange(len(wanted)))
    assert np.all(np.delete(places, blocks.output) == len(wanted))


def test_a_small_map_is_one_block_without_spare_keys():
    """Maps of one block, as the 7x7 of a ResNet's last stage, must not pay for a border."""
    blocks = window_blocks(7, 7, 7, 1, 1, 128)
    assert blocks.count == 1
    assert np.array_equal(blocks.key, np.arange(49))


def test_outside_survives_float16():
    """Row and column bias add up: twice the value for pixels outside must not overflow half precision."""
    assert np.isfinite(np.float16(2 * OUTSIDE))
    assert np.exp(np.float32(OUTSIDE)) == 0
