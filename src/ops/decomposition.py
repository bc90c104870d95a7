# SPDX-License-Identifier: Apache-2.0
"""A k x k convolution written as 1x1 convolutions, shifts and a sum (paper, section 3.1)."""

from mindspore import ops

from src.ops.shift import shift_and_sum


def convolution_by_shifts(x, weight, stride=1, dilation=1, groups=1):
    """Convolve by the two stages of the paper, for any odd k.

    Stage I applies each of the k*k positions of the kernel as a 1x1 convolution of its own; stage II shifts the k*k
    results by their kernel offsets and sums them. Equals
    `ops.conv2d(x, weight, None, stride, "pad", dilation * (k // 2), dilation, groups)`.

    Args:
        x (Tensor): (B, C_in, H, W).
        weight (Tensor): (C_out, C_in / groups, k, k).

    Returns:
        Tensor: (B, C_out, ceil(H / stride), ceil(W / stride)).

    Raises:
        ValueError: an even or non-square kernel, or channels that do not fit the groups.
    """
    out_channels, group_channels, kernel, width = weight.shape
    if kernel != width or kernel % 2 == 0:
        raise ValueError(f"the kernel must be square and odd to have a centre, got {kernel} x {width}")
    if x.shape[1] != group_channels * groups or out_channels % groups:
        raise ValueError(
            f"{x.shape[1]} -> {out_channels} channels do not fit {groups} groups of {group_channels} inputs"
        )
    taps = kernel * kernel
    # Row o * k*k + t of the 1x1 kernel is position t of output channel o, so that groups stay together.
    one_by_one = weight.reshape(out_channels, group_channels, taps).transpose(0, 2, 1)
    one_by_one = one_by_one.reshape(out_channels * taps, group_channels, 1, 1)
    maps = ops.conv2d(x, one_by_one, None, 1, "valid", 0, 1, groups)
    maps = maps.reshape(x.shape[0], out_channels, taps, x.shape[2], x.shape[3])
    return shift_and_sum(maps, kernel, stride, dilation)
