# SPDX-License-Identifier: Apache-2.0
"""The exact GELU, x times the normal distribution function, without erf.

The ONNX exporter has no erf and a CPU needs longer for one than for sixteen multiplications and additions.
"""

from functools import cached_property

from mindspore import nn, ops

from src.ops.fused import FusedGelu, TwoForms

# The logit of the distribution function is odd: x * P(x^2). These are the minimax coefficients of P for the error of
# GELU, which they keep below 1e-7 everywhere: the highest comes first and is positive, so that the ends are right too.
_COEFFICIENTS = (
    3.627859038846849e-09,
    -2.6756660065049034e-07,
    7.948144825042711e-06,
    -1.1054679790384229e-04,
    -6.605331952552594e-05,
    7.266829812115530e-02,
    1.595768536857321,
)


class NormalDistribution(nn.Cell):
    """The probability that a standard normal variable is below x, computed in float32; any shape."""

    def construct(self, x):
        x = x.astype("float32")  # float16 would round the highest coefficient to zero, and large x to the wrong end
        square = x * x
        logit = square * _COEFFICIENTS[0] + _COEFFICIENTS[1]
        for coefficient in _COEFFICIENTS[2:]:
            logit = logit * square + coefficient
        return ops.sigmoid(logit * x)

    def bprop(self, x, out, dout):
        x32 = x.astype("float32")
        return ((dout * ops.exp(x32 * x32 * -0.5) * 0.3989422804014327).astype(x.dtype),)


class Gelu(TwoForms):
    """x * P(a standard normal variable < x) (Hendrycks and Gimpel, 2016), to float32's precision; any shape."""

    def __init__(self):
        super().__init__()
        self.distribution = NormalDistribution()

    @cached_property
    def kernels(self):
        return FusedGelu()

    def construct(self, x):
        return self.kernels(x) if self.is_fused else x * self.distribution(x).astype(x.dtype)
