# SPDX-License-Identifier: Apache-2.0
"""A batch norm of rows some of which are places that are not used."""

import mindspore as ms
from mindspore import nn, ops

from src.ops.alike import alike


class UsedBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose statistics are of the rows that are used; of them all it is just that.

    Inputs:
        x (Tensor): (N, C, H, W).
        used (Tensor): float32 (N,), 1 or 0. None: all are.

    Outputs: (N, C, H, W), all of it normalised.
    """

    def construct(self, x, used=None):
        is_of_batch = self.training if self.use_batch_statistics is None else self.use_batch_statistics
        if used is None or not is_of_batch:
            return super().construct(x)
        x = x.astype(ms.float32)
        rows, channels, height, width = x.shape
        count = ops.maximum(used.sum() * (height * width), 2.0)
        # Sums over rows as products: nothing of the size of x is made for them.
        weights = used.reshape(1, rows)
        mean = ops.matmul(weights, x.reshape(rows, -1)).reshape(channels, -1).sum(1) / count
        x, means = alike(x, mean.reshape(1, channels, 1, 1))
        x = x - means
        squares = ops.matmul(weights, ops.square(x).reshape(rows, -1)).reshape(channels, -1).sum(1)
        variance = squares / count
        scale = self.gamma * (variance + self.eps) ** -0.5
        x, scales, shifts = alike(x, scale.reshape(1, channels, 1, 1), self.beta.reshape(1, channels, 1, 1))
        out = x * scales + shifts
        kept = self.keep(ops.stop_gradient(mean), ops.stop_gradient(squares / (count - 1)))
        return ops.depend(out, kept)

    def keep(self, mean, variance):
        """Move the running averages towards what a batch has."""
        mean = self.moving_mean + self.momentum * (mean - self.moving_mean)
        variance = self.moving_variance + self.momentum * (variance - self.moving_variance)
        return ops.assign(self.moving_mean, mean), ops.assign(self.moving_variance, variance)
