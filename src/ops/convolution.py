# SPDX-License-Identifier: Apache-2.0
"""Convolutions of heads: MindSpore's own, or on a CPU with fewer multiplications."""

from functools import cached_property

from mindspore import nn

from src.ops.fused import FusedConvolution3x3, TwoForms

# Of fewer pixels in a batch (B * H * W) to transform the weight takes longer than that saves.
FEWEST_PIXELS = 256


class Convolution(TwoForms, nn.Conv2d):
    """What `nn.Conv2d` is, with its arguments and parameters.

    The fused form knows 3x3 convolutions of stride 1 padded by 1, and needs 4/9 of the multiplications: those of
    Winograd's F(2x2, 3x3) (Lavin and Gray, *Fast Algorithms for Convolutional Neural Networks*, CVPR 2016, arXiv
    1509.09308, section 4.1). Other convolutions, and batches of fewer than `FEWEST_PIXELS`, take MindSpore's operator.

    Inputs: (B, in_channels, H, W). Outputs: (B, out_channels, H', W').
    """

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        geometry = self.kernel_size, self.stride, self.dilation, self.group, self.pad_mode, self.padding
        self.can_be_fused = geometry in [((3, 3), (1, 1), (1, 1), 1, "pad", pad) for pad in (1, (1, 1, 1, 1))]

    @cached_property
    def kernels(self):
        return FusedConvolution3x3()

    def construct(self, x):
        out = self.convolved(x, self.weight)
        return self.bias_add(out, self.bias) if self.has_bias else out

    def convolved(self, x, weight):
        """Convolve with a kernel of this geometry: (B, I, H, W) and (O, I, k, k) -> (B, O, H', W')."""
        if not self.is_fused or x.shape[0] * x.shape[2] * x.shape[3] < FEWEST_PIXELS:
            return self.conv2d(x, weight)
        return self.kernels(x, weight)
