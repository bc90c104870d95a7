# SPDX-License-Identifier: Apache-2.0
"""The convolutions of heads: which of them the fused kernels take. What they give: test_kernels.py."""

import mindspore as ms
import pytest
from mindspore import nn, ops

from src.heads.convolution import ConvNormRelu, biased_convolution
from src.ops.convolution import FEWEST_PIXELS, Convolution
from src.ops.kernels import fused_form


class Nothing(nn.Cell):
    """In place of the kernels: zeros."""

    def construct(self, x, weight):
        return ops.zeros((x.shape[0], weight.shape[0], *x.shape[2:]), x.dtype)


@pytest.mark.parametrize(
    ("make", "side", "is_fused"),
    [
        pytest.param(lambda: biased_convolution(3, 4, 3, "normal"), 16, True, id="of a head"),
        pytest.param(lambda: ConvNormRelu(3, 4, 3).conv, 16, True, id="with a norm"),
        pytest.param(lambda: Convolution(3, 4, 3, pad_mode="pad", padding=(1, 1, 1, 1)), 16, True, id="four paddings"),
        pytest.param(lambda: biased_convolution(3, 4, 3, "normal"), 15, False, id="small map"),
        pytest.param(lambda: biased_convolution(3, 4, 3, "normal", stride=2), 16, False, id="stride"),
        pytest.param(lambda: biased_convolution(3, 4, 1, "normal"), 16, False, id="1x1"),
        pytest.param(lambda: Convolution(3, 4, 3, pad_mode="pad", padding=2, dilation=2), 16, False, id="dilation"),
        pytest.param(lambda: Convolution(3, 3, 3, pad_mode="pad", padding=1, group=3), 16, False, id="groups"),
        pytest.param(lambda: Convolution(3, 4, 3, pad_mode="valid"), 16, False, id="no padding"),
    ],
)
def test_the_kernels_take_what_they_know(make, side, is_fused):
    """Protects the speed of heads, which nothing else would miss, and results where the kernels do not apply."""
    ms.set_context(mode=ms.GRAPH_MODE)
    assert 15**2 < FEWEST_PIXELS <= 16**2
    cell = make()
    vars(cell)["kernels"] = Nothing()
    with fused_form():
        out = cell(ops.ones((1, 3, side, side), ms.float32))
    assert (out.asnumpy() == 0).all() == is_fused


def test_maps_of_other_channels_are_refused():
    """Protects memory: the kernels would read beyond the weight."""
    ms.set_context(mode=ms.GRAPH_MODE)
    with fused_form(), pytest.raises(ValueError, match="of 5 channels takes no weight of shape"):
        Convolution(3, 4, 3, pad_mode="pad", padding=1)(ops.ones((1, 5, 16, 16), ms.float32))
