# SPDX-License-Identifier: Apache-2.0
"""A convolution of maps of several sizes, each convolved at its own size, by the two stages of the paper.

A k x k convolution is k*k convolutions of 1x1, shifts and a sum (paper, section 3.1). A 1x1 convolution and a resize
may change places, as one works on channels and the other on places. So what would be convolved only after it is
enlarged is convolved before:

    stage I    k*k 1x1 convolutions, of the small map
    stage II   resize, shift and sum: all three are linear along rows, and then along columns
"""

import numpy as np
from mindspore import Tensor, ops

from src.ops.convolution import Convolution
from src.ops.interpolation import interpolation, linear


class PyramidConvolution(Convolution):
    """Maps brought to the size of the first one, joined, and convolved by a k x k kernel.

    It has the parameters of the `nn.Conv2d` that it equals, of stride 1 and padding k // 2. Where each of four maps is
    a quarter of the one before, as in UperNet, it needs a third of the multiply-adds.

    Inputs: a tuple of n maps (B, in_channels / n, h, w). Outputs: (B, out_channels, H, W), of the first map's size.
    """

    def construct(self, maps):
        size = maps[0].shape[2:]
        weights = ops.split(self.weight, self.in_channels // len(maps), 1)
        out = 0
        for x, weight in zip(maps, weights):
            weight = weight.astype(x.dtype)
            out = out + (self.convolved(x, weight) if x.shape[2:] == size else convolved_and_resized(x, weight, size))
        # Not `ops.bias_add`, which the ONNX exporter adds to the last axis.
        return out + self.bias.astype(out.dtype).reshape(1, -1, 1, 1) if self.has_bias else out


def convolved_and_resized(x, weight, size):
    """Convolve `src.ops.resize.resized(x, size)`, padded with k // 2 zeros on each side, computed at the size of x.

    Args:
        x (Tensor): (B, C_in, h, w).
        weight (Tensor): (C_out, C_in, k, k), k odd.
        size (tuple): (H, W).

    Returns:
        Tensor: (B, C_out, H, W).
    """
    inputs, kernel = weight.shape[1:3]
    # Row (i * k + j) * C_out + o of the 1x1 kernel is place (i, j) of output channel o.
    one_by_one = weight.transpose(2, 3, 0, 1).reshape(-1, inputs, 1, 1)
    maps = ops.conv2d(x, one_by_one, None, 1, "valid")
    # Along the rows first, so that what is transposed is small.
    maps = _shifted_and_summed(maps.swapaxes(2, 3), kernel, size[0]).swapaxes(2, 3)
    return _shifted_and_summed(maps, kernel, size[1])


def _shifted_and_summed(maps, kernel, new):
    """(B, k * C, n, old) -> (B, C, n, new): each of the k sets of maps resized, shifted by its place, and summed."""
    out = 0
    for place, of_place in enumerate(ops.split(maps, maps.shape[1] // kernel, 1)):
        out = out + ops.matmul(of_place, _resize_and_shift(maps.shape[3], new, place - kernel // 2).astype(maps.dtype))
    return out


@ops.constexpr
def _resize_and_shift(old, new, offset):
    """(old, new): what each old value adds to the new ones `offset` further on; zero beyond the ends."""
    weights = interpolation(old, new, linear).T
    padded = np.pad(weights, ((0, 0), (abs(offset), abs(offset))))
    begin = abs(offset) + offset
    return Tensor(padded[:, begin : begin + new].astype(np.float32))
