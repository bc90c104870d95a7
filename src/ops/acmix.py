# SPDX-License-Identifier: Apache-2.0
"""ACmix: convolution and self-attention from one set of projections.

*On the Integration of Self-Attention and Convolution*, Pan et al., CVPR 2022, arXiv 2111.14556.

A k x k convolution is k*k separate 1x1 convolutions, each shifted by its kernel offset, then summed (see
`decomposition.py`). Self-attention begins with 1x1 convolutions too: the projections to query, key and value. They cost
O(C^2), all that follows only O(C). So ACmix projects once and uses the result twice:

    stage I    x -> query, key, value             three 1x1 convolutions, each cut into N heads of d = C / N channels
    stage II   query, key, value -> attention     weights from query and key, applied to the values
               query, key, value -> convolution   a light linear layer makes k*k maps of them; shift; sum
    output     alpha * attention + beta * convolution
"""

import numpy as np
from mindspore import Parameter, Tensor, nn

from src.ops.gather_rows import GatherRows
from src.ops.shift import SHIFTS, ShiftSum
from src.ops.sliding_window import SlidingWindowAttention

PATHS = ("both", "attention", "convolution")


class ConvolutionPath(nn.Cell):
    """Stage II of the convolution: a linear layer over the 3N projected maps, then shift and sum (paper, section 4.2).

    The i-th channels of all 3N heads together form slot i. The linear layer `fc`, shared by the d slots, turns the 3N
    maps of a slot into k*k, and the shift sums those into the N outputs of the slot: output channels come slot by slot.

    Inputs: qkv (B, 3C, H, W), head by head. Outputs: (B, C, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(self, channels, heads=4, kernel=3, stride=1, dilation=1, shift="learnable"):
        super().__init__()
        self.pieces, self.slots, self.taps = 3 * heads, channels // heads, kernel * kernel
        self.fc = nn.Conv2d(self.pieces, self.taps, 1)
        self.shift = ShiftSum(channels, self.slots, kernel, stride, dilation, shift)
        tap_by_tap = np.arange(self.taps * self.slots, dtype=np.int32).reshape(self.taps, self.slots)
        self.slot_by_slot, self.back = Tensor(tap_by_tap.T.reshape(-1)), Tensor(np.argsort(tap_by_tap.T.reshape(1, -1)))
        self.gather = GatherRows()

    def construct(self, qkv):
        batch, _, height, width = qkv.shape
        maps = self.fc(qkv.reshape(batch, self.pieces, self.slots * height, width))
        maps = self.gather(maps.reshape(batch, -1, height * width), self.slot_by_slot, self.back)
        return self.shift(maps.reshape(batch, -1, height, width))


class ACmix(nn.Cell):
    """The ACmix operator, in place of an `nn.Conv2d` of the same channels, stride and dilation.

    Args:
        in_channels (int): channels of the input.
        out_channels (int): C, divisible by `heads`.
        kernel_att (int): side of the attention window, odd.
        heads (int): N.
        kernel_conv (int): k of the convolution, odd.
        stride (int): step of both paths.
        dilation (int): spacing of the pixels in the attention window and of the shifts.
        paths (str): "both", or only "attention" or "convolution" (then without alpha and beta).
        shift (str): "learnable" (a grouped convolution that starts as the shifts), "fixed" (the same, frozen) or
            "slice" (tensor slices).

    Inputs:
        x (B, in_channels, H, W), any H, W >= 1; read when the graph is compiled.

    Outputs:
        (B, C, ceil(H / stride), ceil(W / stride)).

    Raises:
        ValueError: an argument that cannot work, named, when the Cell is built.
    """

    def __init__(
        self,
        in_channels,
        out_channels,
        kernel_att=7,
        heads=4,
        kernel_conv=3,
        stride=1,
        dilation=1,
        paths="both",
        shift="learnable",
    ):
        super().__init__()
        _check(in_channels, out_channels, kernel_att, heads, kernel_conv, stride, dilation, paths, shift)
        self.qkv = nn.Conv2d(in_channels, 3 * out_channels, 1, has_bias=True)
        self.has_attention, self.has_convolution = paths != "convolution", paths != "attention"
        if self.has_attention:
            self.attention = SlidingWindowAttention(out_channels, heads, kernel_att, stride, dilation)
        if self.has_convolution:
            self.convolution = ConvolutionPath(out_channels, heads, kernel_conv, stride, dilation, shift)
        if paths == "both":
            self.alpha = Parameter(Tensor([0.5]), name="alpha")
            self.beta = Parameter(Tensor([0.5]), name="beta")

    def construct(self, x):
        qkv = self.qkv(x)
        if not self.has_convolution:
            return self.attention(qkv)
        if not self.has_attention:
            return self.convolution(qkv)
        return self.alpha * self.attention(qkv) + self.beta * self.convolution(qkv)


def _check(in_channels, out_channels, kernel_att, heads, kernel_conv, stride, dilation, paths, shift):
    numbers = {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "kernel_att": kernel_att,
        "heads": heads,
        "kernel_conv": kernel_conv,
        "stride": stride,
        "dilation": dilation,
    }
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"ACmix {name} must be a whole number from 1, got {value!r}")
    if out_channels % heads:
        raise ValueError(f"ACmix out_channels={out_channels} must be divisible by heads={heads}")
    for name in ("kernel_att", "kernel_conv"):
        if numbers[name] % 2 == 0:
            raise ValueError(f"ACmix {name} must be odd so that a window has a centre, got {numbers[name]}")
    if paths not in PATHS:
        raise ValueError(f"ACmix paths must be one of {', '.join(PATHS)}, got {paths!r}")
    if shift not in SHIFTS:
        raise ValueError(f"ACmix shift must be one of {', '.join(SHIFTS)}, got {shift!r}")
