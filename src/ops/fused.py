# SPDX-License-Identifier: Apache-2.0
"""Stage II by the fused kernels of `kernels/`: what the portable forms compute, with none of it laid out in memory."""

import mindspore as ms
from mindspore import Tensor, nn, ops

from src.ops.kernels import library


def _operator(name, outputs, shapes):
    """An operator of the library; `shapes` makes the shapes of its outputs from those of its inputs."""

    def out_dtype(first, *_):
        return (first,) * outputs if outputs > 1 else first

    return ops.Custom(f"{library()}:{name}", out_shape=shapes, out_dtype=out_dtype, func_type="aot")


# Whatever type mixed precision gives on the way in, arithmetic is in float32.
def _float32(tensor):
    return tensor.astype(ms.float32)


def fuses(stride=1):
    """Return whether a Cell that is built now is to call the fused kernels, which know strides up to 8."""
    return library() is not None and stride <= 8


class FusedAttention(nn.Cell):
    """Sliding-window attention by one kernel, its gradient by another; see `SlidingWindowAttention`.

    Args:
        heads, kernel, stride, dilation (int): of the attention; strides up to 8.

    Inputs:
        qkv (B, 3C, H, W); position (d, 2), W_p.

    Outputs:
        (B, C, H', W'), float32.
    """

    def __init__(self, heads, kernel, stride, dilation):
        super().__init__()
        self.numbers = Tensor([kernel, stride, dilation], ms.int32)

        def forward(qkv, *_):
            return [qkv[0], qkv[1] // 3, -(-qkv[2] // stride), -(-qkv[3] // stride)]

        def backward(qkv, position, *_):
            return qkv, [qkv[0], heads, *position]

        self.attend = _operator("SlidingWindowAttention", 1, forward)
        self.gradient = _operator("SlidingWindowAttentionGradient", 2, backward)

    def construct(self, qkv, position):
        return self.attend(_float32(qkv), _float32(position), self.numbers)

    def bprop(self, qkv, position, out, dout):
        dqkv, dposition = self.gradient(_float32(qkv), _float32(position), self.numbers, _float32(dout))
        return dqkv.astype(qkv.dtype), dposition.sum((0, 1)).astype(position.dtype)


class FusedConvolution(nn.Cell):
    """A convolution of the pieces of each slot as they lie, by one kernel, its gradient by another.

    Inputs:
        pieces (B, P * d, H, W), piece by piece; weight (C, P, k, k), slot by slot.

    Outputs:
        (B, C, H', W'), float32, slot by slot.
    """

    def __init__(self, pieces, kernel, stride, dilation):
        super().__init__()
        self.numbers = Tensor([kernel, stride, dilation, pieces], ms.int32)

        def forward(pieces, weight, _):
            return _convolved(pieces, weight, stride)

        self.convolve = _operator("ConvolutionOfPieces", 1, forward)
        self.gradient = _operator("ConvolutionOfPiecesGradient", 2, lambda pieces, weight, *_: (pieces, weight))

    def construct(self, pieces, weight):
        return self.convolve(_float32(pieces), _float32(weight), self.numbers)

    def bprop(self, pieces, weight, out, dout):
        dpieces, dweight = self.gradient(_float32(pieces), _float32(weight), self.numbers, _float32(dout))
        return dpieces.astype(pieces.dtype), dweight.astype(weight.dtype)


class FusedReducedConvolution(nn.Cell):
    """The same of pieces the last of which are reduced: a pixel of theirs stands for r x r, see `GridConvolution`.

    Inputs:
        whole (B, n * d, H, W); reduced (B, (P - n) * d, H // r, W // r); weight (C, P, k, k).

    Outputs:
        (B, C, H, W), float32, slot by slot.
    """

    def __init__(self, pieces, kernel, reduction):
        super().__init__()
        self.numbers = Tensor([kernel, 1, 1, pieces, reduction], ms.int32)

        def forward(whole, reduced, weight, _):
            return _convolved(whole, weight, 1)

        self.convolve = _operator("ConvolutionOfReducedPieces", 1, forward)
        self.gradient = _operator("ConvolutionOfReducedPiecesGradient", 3, lambda *shapes: shapes[:3])

    def construct(self, whole, reduced, weight):
        return self.convolve(_float32(whole), _float32(reduced), _float32(weight), self.numbers)

    def bprop(self, whole, reduced, weight, out, dout):
        dwhole, dreduced, dweight = self.gradient(
            _float32(whole), _float32(reduced), _float32(weight), self.numbers, _float32(dout)
        )
        return dwhole.astype(whole.dtype), dreduced.astype(reduced.dtype), dweight.astype(weight.dtype)


class FusedLayerConvolution(nn.Cell):
    """The same of the maps that a linear layer makes of the pieces, which are never all in memory.

    Inputs:
        pieces (B, P * d, H, W); layer (T, P); bias (T,), zeros for none; weight (C, T, k, k).

    Outputs:
        (B, C, H', W'), float32.
    """

    def __init__(self, pieces, kernel, stride, dilation):
        super().__init__()
        self.numbers = Tensor([kernel, stride, dilation, pieces], ms.int32)

        def forward(pieces, layer, bias, weight, _):
            return _convolved(pieces, weight, stride)

        def backward(maps, layer, bias, weight, *_):
            slots = maps[1] // pieces
            return maps, [slots, *layer], [slots, *bias], weight

        self.convolve = _operator("LayerAndConvolution", 1, forward)
        self.gradient = _operator("LayerAndConvolutionGradient", 4, backward)

    def construct(self, pieces, layer, bias, weight):
        layer, bias, weight = _float32(layer), _float32(bias), _float32(weight)
        return self.convolve(_float32(pieces), layer, bias, weight, self.numbers)

    def bprop(self, pieces, layer, bias, weight, out, dout):
        dpieces, dlayer, dbias, dweight = self.gradient(
            _float32(pieces), _float32(layer), _float32(bias), _float32(weight), self.numbers, _float32(dout)
        )
        return (
            dpieces.astype(pieces.dtype),
            dlayer.sum(0).astype(layer.dtype),
            dbias.sum(0).astype(bias.dtype),
            dweight.astype(weight.dtype),
        )


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
        return self.add(_float32(alpha), _float32(a), _float32(beta), _float32(b)).astype(a.dtype)

    def bprop(self, alpha, a, beta, b, out, dout):
        dalpha, da, dbeta, db = self.gradient(_float32(alpha), _float32(a), _float32(beta), _float32(b), _float32(dout))
        return dalpha.astype(alpha.dtype), da.astype(a.dtype), dbeta.astype(beta.dtype), db.astype(b.dtype)


def _convolved(pieces, weight, stride):
    return [pieces[0], weight[0], -(-pieces[2] // stride), -(-pieces[3] // stride)]
