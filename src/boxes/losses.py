# SPDX-License-Identifier: Apache-2.0
"""What the training of detectors minimises. Each loss is a weighted sum over boxes by a divisor, float32 ().

Args of all of them: `weights` float32, one for each box, 0 for those not to be judged; `divisor` float32 (), above 0.
"""

import mindspore as ms
from mindspore import nn, ops

from src.boxes.overlaps import giou
from src.ops.alike import alike


class _Focal(nn.Cell):
    """The focal loss of logits (...), element by element, towards 0.

    Its gradient is written down: derived from what is stable at all logits it is wrong at 0, and takes more memory.
    """

    def __init__(self, gamma):
        super().__init__()
        self.gamma, self.softplus = gamma, ops.Softplus()

    def construct(self, x):
        return ops.sigmoid(x) ** self.gamma * self.softplus(x)

    def bprop(self, x, out, dout):
        wrong = ops.sigmoid(x)
        return (dout * wrong**self.gamma * (self.gamma * (1 - wrong) * self.softplus(x) + wrong),)


class FocalLoss(nn.Cell):
    """Each class of each box judged by itself, hard ones more. Lin et al., *Focal Loss*, ICCV 2017.

    Inputs:
        logits (Tensor): float32 (..., K).
        labels (Tensor): int32 (...), a class, or -1 for none of them.
        weights (Tensor): float32 (...).
        divisor (Tensor): float32 ().
    """

    def __init__(self, gamma=2.0, alpha=0.25):
        super().__init__()
        self.alpha, self.towards_zero = alpha, _Focal(gamma)

    def construct(self, logits, labels, weights, divisor):
        classes = ops.arange(logits.shape[-1]).astype(ms.int32)
        labels, classes = alike(labels.expand_dims(-1), classes)
        weights, _ = alike(weights.expand_dims(-1), logits)
        is_class = ops.equal(labels, classes).astype(ms.float32)
        # The loss towards 1 is the loss of the opposite logit towards 0.
        losses = self.towards_zero(logits * (1 - 2 * is_class))
        losses = losses * (1 - self.alpha + (2 * self.alpha - 1) * is_class)
        return (losses * weights).sum() / divisor


def smooth_l1_loss(predicted, target, weights, divisor, beta=1 / 9):
    """Squares below `beta`, absolute differences above, of float32 (..., 4); 0 for `beta` is L1."""
    losses = ops.smooth_l1_loss(predicted, target, beta) if beta else ops.abs(predicted - target)
    return (losses * weights.expand_dims(-1)).sum() / divisor


def giou_loss(predicted, target, weights, divisor):
    """1 - GIoU of boxes, float32 (..., 4)."""
    return ((1 - giou(predicted, target)) * weights).sum() / divisor
