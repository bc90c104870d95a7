# SPDX-License-Identifier: Apache-2.0
"""The paper's first identity: a convolution is 1x1 convolutions, shifts and a sum."""

import mindspore as ms
import numpy as np
import pytest
from acmix_reference import convolve
from hypothesis import given, settings
from hypothesis import strategies as st
from mindspore import Tensor, nn, ops

from src.ops import convolution_by_shifts


class Both(nn.Cell):
    """The decomposition and `ops.conv2d`, in one graph."""

    def __init__(self, kernel, stride, dilation, groups):
        super().__init__()
        self.pad = dilation * (kernel // 2)
        self.stride, self.dilation, self.groups = stride, dilation, groups

    def construct(self, x, weight):
        ours = convolution_by_shifts(x, weight, self.stride, self.dilation, self.groups)
        return ours, ops.conv2d(x, weight, None, self.stride, "pad", self.pad, self.dilation, self.groups)


@settings(max_examples=5, deadline=None)
@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    kernel=st.sampled_from((1, 3, 5)),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 3),
    groups=st.sampled_from((1, 2, 4)),
    seed=st.integers(0, 2**31),
)
def test_equals_the_convolution(height, width, kernel, stride, dilation, groups, seed):
    """For every stride, dilation and grouping; the literal sum is the judge of both."""
    ms.set_context(mode=ms.GRAPH_MODE)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, 4, height, width)).astype(np.float32)
    weight = rng.standard_normal((8, 4 // groups, kernel, kernel)).astype(np.float32)
    ours, theirs = Both(kernel, stride, dilation, groups)(Tensor(x), Tensor(weight))
    expected = convolve(x, weight, stride, dilation, groups)
    scale = 1e-5 * max(np.abs(expected).max(), 1)
    assert np.abs(ours.asnumpy() - expected).max() < scale
    assert np.abs(theirs.asnumpy() - expected).max() < scale


@pytest.mark.parametrize(
    ("weight", "groups"), [((8, 4, 2, 2), 1), ((8, 4, 3, 5), 1), ((8, 3, 3, 3), 1), ((7, 2, 3, 3), 2)]
)
def test_kernels_that_cannot_work_are_refused(weight, groups):
    """Even or oblong kernels have no centre; channels must fit the groups."""
    with pytest.raises(ValueError, match=r"kernel|channels"):
        convolution_by_shifts(ops.zeros((1, 4, 5, 5), ms.float32), ops.zeros(weight, ms.float32), groups=groups)
