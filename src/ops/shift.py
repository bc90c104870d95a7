# SPDX-License-Identifier: Apache-2.0
"""The shift (paper, section 4.3): move each of k*k maps by its kernel offset, and sum.

Three ways to say the same: tensor slices; a grouped convolution whose kernels are one-hot; the same convolution,
learnable, with the one-hot kernels as its initial value. They agree until training moves the learnable kernels.
"""

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

SHIFTS = ("learnable", "fixed", "slice")


def one_hot_shifts(kernel):
    """(k*k, k, k) float32: kernel t is one at offset t = k * row + column and zero elsewhere."""
    return np.eye(kernel * kernel, dtype=np.float32).reshape(kernel * kernel, kernel, kernel)


def shift_and_sum(maps, kernel, stride=1, dilation=1):
    """Shift by tensor slices: out[y, x] = sum over t of maps[t] at (y, x) + offset t, zero outside the map.

    Args:
        maps (Tensor): (B, G, k*k, H, W).
        kernel (int): k, odd.

    Returns:
        (B, G, ceil(H / stride), ceil(W / stride)).
    """
    height, width = maps.shape[-2:]
    pad = dilation * (kernel // 2)
    maps = ops.Pad(((0, 0), (0, 0), (0, 0), (pad, pad), (pad, pad)))(maps)
    out = 0
    for t in range(kernel * kernel):
        top, left = t // kernel * dilation, t % kernel * dilation
        out = out + maps[:, :, t, top : top + height : stride, left : left + width : stride]
    return out


class ShiftSum(nn.Cell):
    """Shift k*k maps of each group by their offsets and sum them, once per output of the group.

    Args:
        channels (int): C outputs, C / groups in each group.
        groups (int): G independent sets of maps.
        kernel (int): k, odd.
        stride, dilation (int): as of a convolution with padding dilation * (k // 2).
        shift (str): one of `SHIFTS`.

    Inputs:
        maps (B, G * k*k, H, W), group by group.

    Outputs:
        (B, C, ceil(H / stride), ceil(W / stride)), group by group.
    """

    def __init__(self, channels, groups, kernel=3, stride=1, dilation=1, shift="learnable"):
        super().__init__()
        if shift not in SHIFTS:
            raise ValueError(f"ACmix shift must be one of {', '.join(SHIFTS)}, got {shift!r}")
        self.channels, self.groups, self.kernel, self.stride, self.dilation = channels, groups, kernel, stride, dilation
        self.by_slices = shift == "slice"
        if not self.by_slices:
            weight = np.broadcast_to(one_hot_shifts(kernel), (channels, kernel * kernel, kernel, kernel))
            self.weight = Parameter(Tensor(weight.copy()), name="weight", requires_grad=shift == "learnable")

    def construct(self, maps):
        if self.by_slices:
            batch, _, height, width = maps.shape
            maps = maps.reshape(batch, self.groups, self.kernel * self.kernel, height, width)
            out = shift_and_sum(maps, self.kernel, self.stride, self.dilation)
            return ops.repeat_interleave(out, self.channels // self.groups, 1)
        pad = self.dilation * (self.kernel // 2)
        return ops.conv2d(
            maps, self.weight.astype(maps.dtype), None, self.stride, "pad", pad, self.dilation, self.groups
        )

    def multiply_adds(self, input_shape, output_shape):
        """Of the grouped convolution; slices only add."""
        outputs = output_shape[0] * output_shape[1] * output_shape[2] * output_shape[3]
        return 0 if self.by_slices else outputs * self.kernel**4
