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

import math
from functools import cached_property

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype

from src.ops.fused import MOST_STRIDE, FusedConvolution, FusedSum, TwoForms
from src.ops.gather_rows import GatherRows
from src.ops.shift import ShiftSum
from src.ops.sliding_window import SlidingWindowAttention

PATHS = ("both", "attention", "convolution")


class ConvolutionPath(TwoForms):
    """Stage II of the convolution: a linear layer over the projected maps, then shift and sum (paper, section 4.2).

    The projection is cut into pieces of d channels each: the heads of query, key and value, 3N of them. The i-th
    channels of all pieces together form slot i. The linear layer `fc`, shared by the d slots, turns the maps of a slot
    into k*k, and the shift sums those into the C / d outputs of the slot: output channels come slot by slot.

    Args:
        pieces (int): 3N for N heads.
        slots (int): d.
        channels (int): C.
        kernel, stride, dilation (int), shift (str): of the shift, see `ShiftSum`.
        has_bias (bool): whether `fc` has a bias.

    Inputs: (B, pieces * d, H, W), piece by piece. Outputs: (B, C, ceil(H / stride), ceil(W / stride)).

    Raises:
        ValueError: a kernel without a centre.
    """

    def __init__(self, pieces, slots, channels, kernel=3, stride=1, dilation=1, shift="learnable", has_bias=False):
        super().__init__()
        if isinstance(kernel, bool) or not isinstance(kernel, int) or kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"ACmix kernel_conv must be an odd whole number from 1, got {kernel!r}")
        self.pieces, self.slots, self.taps = pieces, slots, kernel * kernel
        self.fc = nn.Conv2d(pieces, self.taps, 1, has_bias=has_bias)
        self.shift = ShiftSum(channels, slots, kernel, stride, dilation, shift)
        self.can_be_fused = stride <= MOST_STRIDE and not self.shift.by_slices
        self.no_bias = Tensor(np.zeros(self.taps, np.float32))
        order = np.arange(self.taps * slots, dtype=np.int32).reshape(self.taps, slots).T
        self.slot_by_slot, self.back = Tensor(order.reshape(-1)), Tensor(np.argsort(order.reshape(1, -1)))
        self.gather = GatherRows()

    @cached_property
    def kernels(self):
        return FusedConvolution(
            self.pieces, self.shift.kernel, self.shift.stride, self.shift.dilation, self.fc.has_bias
        )

    def construct(self, maps):
        return self.fused(maps) if self.is_fused else self.portable(maps)

    def fused(self, maps):
        bias = self.fc.bias if self.fc.has_bias else self.no_bias
        return self.kernels(maps, self.fc.weight, bias, self.shift.weight)

    def portable(self, maps):
        batch, _, height, width = maps.shape
        maps = self.fc(maps.reshape(batch, self.pieces, self.slots * height, width))
        maps = self.gather(maps.reshape(batch, -1, height * width), self.slot_by_slot, self.back)
        return self.shift(maps.reshape(batch, -1, height, width))

    @property
    def is_whole(self):
        """Whether it runs without running the Cells `fc` and `shift`, which then cannot be counted by themselves."""
        return self.is_fused

    def multiply_adds(self, input_shape, output_shape):
        """Of `fc` and the shift, as the paper counts them; they count themselves where each is run."""
        if not self.is_whole:
            return 0
        batch, _, height, width = input_shape
        per_output = output_shape[0] * output_shape[1] * output_shape[2] * output_shape[3]
        return batch * height * width * self.pieces * self.slots * self.taps + per_output * self.taps**2


class WeightedSum(TwoForms):
    """alpha * a + beta * b for numbers alpha and beta, (1,) each, and a and b of one shape and type.

    In mixed precision too it is computed in float32, where small steps of alpha and beta are not rounded away.
    """

    def __init__(self):
        super().__init__()
        self.sum_of_values = _SumOfValues()

    @cached_property
    def kernels(self):
        return FusedSum()

    def construct(self, alpha, a, beta, b):
        # Values, read once; Parameters would be read forward and backward each, for which MindSpore copies them.
        alpha, beta = alpha.reshape(1), beta.reshape(1)
        return self.kernels(alpha, a, beta, b) if self.is_fused else self.sum_of_values(alpha, a, beta, b)


class _SumOfValues(nn.Cell):
    """The sum itself, its gradient written out: those of alpha and beta as inner products need no further map."""

    def __init__(self):
        super().__init__()
        self.matmul_transposed = ops.MatMul(transpose_b=True)

    def construct(self, alpha, a, beta, b):
        return (alpha.astype(mstype.float32) * a + beta.astype(mstype.float32) * b).astype(a.dtype)

    def bprop(self, alpha, a, beta, b, out, dout):
        dout = dout.astype(mstype.float32)
        # An inner product is the trace of X @ Y^T, where X and Y hold the numbers in up to 16 rows. That fills the
        # matrix unit of an Ascend, 16 x 16 x 16, of which two single rows would use a 256th. (No function of its own:
        # mixed precision would cast what it is given.)
        rows = math.gcd(dout.size, 16)
        of_a = self.matmul_transposed(dout.reshape(rows, -1), a.astype(mstype.float32).reshape(rows, -1))
        of_b = self.matmul_transposed(dout.reshape(rows, -1), b.astype(mstype.float32).reshape(rows, -1))
        dalpha = self.matmul_transposed(of_a.reshape(1, -1), _flat_identity(rows)).reshape(1)
        dbeta = self.matmul_transposed(of_b.reshape(1, -1), _flat_identity(rows)).reshape(1)
        return dalpha, (alpha * dout).astype(a.dtype), dbeta, (beta * dout).astype(b.dtype)


@ops.constexpr
def _flat_identity(rows):
    return Tensor(np.eye(rows, dtype=np.float32).reshape(1, -1))


class Mix(nn.Cell):
    """One projection, two uses: alpha * attention(qkv(x)) + beta * convolution(qkv(x)) (paper, section 4.2).

    The idea does not depend on the form of attention (section 4.5): any Cell that makes an output of the projection
    will do. With one path alone there is no alpha and no beta.

    Args:
        qkv (nn.Cell): stage I, x -> query, key and value on one grid (B, pieces * d, H, W).
        attention (nn.Cell): stage II of attention, (B, pieces * d, H, W) -> (B, C, H', W').
        convolution (nn.Cell): stage II of the convolution, likewise.
        paths (str): "both", "attention" or "convolution"; the Cell of the other path is not kept.

    Raises:
        ValueError: an unknown `paths`.
    """

    def __init__(self, qkv, attention, convolution, paths="both"):
        super().__init__()
        if paths not in PATHS:
            raise ValueError(f"ACmix paths must be one of {', '.join(PATHS)}, got {paths!r}")
        self.qkv = qkv
        self.has_attention, self.has_convolution = paths != "convolution", paths != "attention"
        if self.has_attention:
            self.attention = attention
        if self.has_convolution:
            self.convolution = convolution
        if paths == "both":
            self.alpha = Parameter(Tensor([0.5]), name="alpha")
            self.beta = Parameter(Tensor([0.5]), name="beta")
            self.weighted_sum = WeightedSum()

    def construct(self, x):
        qkv = self.qkv(x)
        if not self.has_convolution:
            return self.attention(qkv)
        if not self.has_attention:
            return self.convolution(qkv)
        return self.weighted_sum(self.alpha, self.attention(qkv), self.beta, self.convolution(qkv))


class ACmix(Mix):
    """ACmix with sliding-window attention, in place of an `nn.Conv2d` of the same channels, stride and dilation.

    Args:
        in_channels (int): channels of the input.
        out_channels (int): C, divisible by `heads`.
        stride (int): step of both paths.
        dilation (int): spacing of the pixels in the attention window and of the shifts.
        kernel_att (int): side of the attention window, odd.
        heads (int): N.
        kernel_conv (int): k of the convolution, odd.
        paths (str): "both", or only "attention" or "convolution".
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
        stride=1,
        dilation=1,
        *,
        kernel_att=7,
        heads=4,
        kernel_conv=3,
        paths="both",
        shift="learnable",
    ):
        _check(in_channels, out_channels, kernel_att, heads, stride, dilation)
        slots = out_channels // heads
        super().__init__(
            nn.Conv2d(in_channels, 3 * out_channels, 1, has_bias=True),
            SlidingWindowAttention(out_channels, heads, kernel_att, stride, dilation),
            ConvolutionPath(3 * heads, slots, out_channels, kernel_conv, stride, dilation, shift),
            paths,
        )


def _check(in_channels, out_channels, kernel_att, heads, stride, dilation):
    numbers = {
        "in_channels": in_channels,
        "out_channels": out_channels,
        "kernel_att": kernel_att,
        "heads": heads,
        "stride": stride,
        "dilation": dilation,
    }
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"ACmix {name} must be a whole number from 1, got {value!r}")
    if out_channels % heads:
        raise ValueError(f"ACmix out_channels={out_channels} must be divisible by heads={heads}")
    if kernel_att % 2 == 0:
        raise ValueError(f"ACmix kernel_att must be odd so that a window has a centre, got {kernel_att}")
