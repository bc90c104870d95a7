# SPDX-License-Identifier: Apache-2.0
"""What portable forms compute, in few passes by the fused kernels of `kernels/`."""

import mindspore as ms
from mindspore import Tensor, nn, ops

from src.ops.kernels import library


def _operator(name, outputs, shapes):
    """An operator of the library; `shapes` makes the shapes of its outputs from those of its inputs."""

    def out_dtype(first, *_):
        return (first,) * outputs if outputs > 1 else first

    return ops.Custom(f"{library()}:{name}", out_shape=shapes, out_dtype=out_dtype, func_type="aot")


# Whatever type mixed precision gives on the way in, arithmetic is in float32. (By a primitive: of a method of a tensor
# MindSpore makes a graph at each place, and a training has hundreds of places to compile.)
FLOAT = ms.float32
as_type = ops.Cast()


# The kernels know no longer steps.
MOST_STRIDE = 8


class TwoForms(nn.Cell):
    """A Cell that says the same twice: portable, by MindSpore's own operators, and fused, by the fused kernels.

    Which form a graph has is decided here, when it is compiled: inside of `fused_form` the fused one. A subclass makes
    the Cell of its kernels when that is asked for, since only then there is a library.

    Attributes:
        can_be_fused (bool): whether the kernels know its arguments.
    """

    can_be_fused = True

    @property
    def is_fused(self):
        return self.can_be_fused and library() is not None


class FusedAttention(nn.Cell):
    """Sliding-window attention by one kernel, its gradient by another; see `SlidingWindowAttention`.

    Args:
        kernel, stride, dilation (int): of the attention; strides up to 8.

    Inputs:
        qkv (B, 3C, H, W); position (d, 2), W_p.

    Outputs:
        (B, C, H', W'), of qkv's type.
    """

    def __init__(self, kernel, stride, dilation):
        super().__init__()
        self.numbers = Tensor([kernel, stride, dilation], ms.int32)

        def attended(qkv, *_):
            return [qkv[0], qkv[1] // 3, -(-qkv[2] // stride), -(-qkv[3] // stride)]

        self.attend = _operator("SlidingWindowAttention", 1, attended)
        self.gradient = _operator("SlidingWindowAttentionGradient", 2, lambda *shapes: shapes[:2])

    def construct(self, qkv, position):
        return as_type(self.attend(as_type(qkv, FLOAT), as_type(position, FLOAT), self.numbers), qkv.dtype)

    def bprop(self, qkv, position, out, dout):
        dqkv, dposition = self.gradient(
            as_type(qkv, FLOAT), as_type(position, FLOAT), self.numbers, as_type(dout, FLOAT)
        )
        return as_type(dqkv, qkv.dtype), as_type(dposition, position.dtype)


class _FusedPath(nn.Cell):
    """A convolution of four inputs by one kernel, `convolve`, their gradients by another, `gradient`."""

    def construct(self, first, second, third, fourth):
        second, third, fourth = as_type(second, FLOAT), as_type(third, FLOAT), as_type(fourth, FLOAT)
        return as_type(self.convolve(as_type(first, FLOAT), second, third, fourth, self.numbers), first.dtype)

    def bprop(self, first, second, third, fourth, out, dout):
        dfirst, dsecond, dthird, dfourth = self.gradient(
            *(as_type(first, FLOAT), as_type(second, FLOAT), as_type(third, FLOAT), as_type(fourth, FLOAT)),
            *(self.numbers, as_type(dout, FLOAT)),
        )
        return (
            as_type(dfirst, first.dtype),
            as_type(dsecond, second.dtype),
            as_type(dthird, third.dtype),
            as_type(dfourth, fourth.dtype),
        )


class FusedConvolution(_FusedPath):
    """The convolution path by one kernel, its gradient by another; see `ConvolutionPath`.

    Args:
        pieces, kernel, stride, dilation (int), has_bias (bool): of the path; strides up to 8.

    Inputs:
        pieces (B, P * d, H, W); layer (k*k, P, 1, 1), `fc`, and its bias (k*k,), whatever it is where it has none;
        weight (C, k*k, k, k), the shift.

    Outputs:
        (B, C, H', W'), of the pieces' type.
    """

    def __init__(self, pieces, kernel, stride, dilation, has_bias):
        super().__init__()
        self.numbers = Tensor([kernel, stride, dilation, pieces, has_bias], ms.int32)

        def convolved(pieces, layer, bias, weight, _):
            return [pieces[0], weight[0], -(-pieces[2] // stride), -(-pieces[3] // stride)]

        self.convolve = _operator("ConvolutionPath", 1, convolved)
        self.gradient = _operator("ConvolutionPathGradient", 4, lambda *shapes: shapes[:4])


class FusedReducedConvolution(_FusedPath):
    """The same of pieces the last of which are reduced: a pixel of theirs stands for r x r, see `GridConvolution`.

    Inputs:
        whole (B, n * d, H, W); reduced (B, (P - n) * d, H // r, W // r); layer (k*k, P, 1, 1); weight (C, k*k, k, k).

    Outputs:
        (B, C, H, W), of the pieces' type.
    """

    def __init__(self, pieces, kernel, reduction):
        super().__init__()
        self.numbers = Tensor([kernel, 1, 1, pieces, reduction], ms.int32)

        def convolved(whole, reduced, layer, weight, _):
            return [whole[0], weight[0], *whole[2:]]

        self.convolve = _operator("ReducedConvolutionPath", 1, convolved)
        self.gradient = _operator("ReducedConvolutionPathGradient", 4, lambda *shapes: shapes[:4])


class FusedConvolution3x3(nn.Cell):
    """A 3x3 convolution of stride 1 with a border of zeros by one kernel, its gradient by another; see `Convolution`.

    Inputs:
        x (B, I, H, W); weight (O, I, 3, 3).

    Outputs:
        (B, O, H, W), of x's type.
    """

    def __init__(self):
        super().__init__()

        def convolved(x, weight):
            if [x[1], 3, 3] != weight[1:]:
                raise ValueError(f"a 3x3 convolution of {x[1]} channels takes no weight of shape {weight}")
            return [x[0], weight[0], *x[2:]]

        self.convolve = _operator("Convolution3x3", 1, convolved)
        self.gradient = _operator("Convolution3x3Gradient", 2, lambda *shapes: shapes[:2])

    def construct(self, x, weight):
        return as_type(self.convolve(as_type(x, FLOAT), as_type(weight, FLOAT)), x.dtype)

    def bprop(self, x, weight, out, dout):
        dx, dweight = self.gradient(as_type(x, FLOAT), as_type(weight, FLOAT), as_type(dout, FLOAT))
        return as_type(dx, x.dtype), as_type(dweight, weight.dtype)


class FusedSum(nn.Cell):
    """alpha * a + beta * b by one kernel, its gradient by another.

    Inputs:
        alpha (1,); a; beta (1,); b, of a's shape.

    Outputs:
        a's shape and type.
    """

    def __init__(self):
        super().__init__()
        self.add = _operator("WeightedSum", 1, lambda alpha, a, beta, b: a)
        self.gradient = _operator("WeightedSumGradient", 4, lambda *shapes: shapes[:4])

    def construct(self, alpha, a, beta, b):
        alpha, beta = as_type(alpha, FLOAT), as_type(beta, FLOAT)
        return as_type(self.add(alpha, as_type(a, FLOAT), beta, as_type(b, FLOAT)), a.dtype)

    def bprop(self, alpha, a, beta, b, out, dout):
        dalpha, da, dbeta, db = self.gradient(
            *(as_type(alpha, FLOAT), as_type(a, FLOAT), as_type(beta, FLOAT), as_type(b, FLOAT), as_type(dout, FLOAT))
        )
        return as_type(dalpha, alpha.dtype), as_type(da, a.dtype), as_type(dbeta, beta.dtype), as_type(db, b.dtype)


class FusedGelu(nn.Cell):
    """The exact GELU of any shape by one kernel, its gradient by another."""

    def __init__(self):
        super().__init__()
        self.of = _operator("Gelu", 1, lambda x: x)
        self.gradient = _operator("GeluGradient", 1, lambda x, dout: x)

    def construct(self, x):
        return as_type(self.of(as_type(x, FLOAT)), x.dtype)

    def bprop(self, x, out, dout):
        return (as_type(self.gradient(as_type(x, FLOAT), as_type(dout, FLOAT)), x.dtype),)


class FusedSuppression(nn.Cell):
    """Which boxes stay, see `src.boxes.suppression`, by one kernel, which looks no further than at those that stay.

    Args:
        iou (float): the most that two boxes may overlap.
        count (int): how many stay at most.

    Inputs:
        boxes (B, N, 4), float32; scores (B, N), float32, falling, below 0 in places without a box.

    Outputs:
        bool (B, N). Without gradient.
    """

    def __init__(self, iou, count):
        super().__init__()
        self.numbers = Tensor([iou, count], FLOAT)
        self.stays = _operator("NonMaximumSuppression", 1, lambda boxes, scores, numbers: scores)

    def construct(self, boxes, scores):
        return self.stays(boxes, scores, self.numbers) > 0

    def bprop(self, boxes, scores, out, dout):
        return ops.zeros_like(boxes), ops.zeros_like(scores)
