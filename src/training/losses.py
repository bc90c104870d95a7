# SPDX-License-Identifier: Apache-2.0
"""What training minimises: float32 logits and labels to the mean loss."""

import mindspore as ms
from mindspore import nn, ops


class BinaryCrossEntropy(nn.Cell):
    """Each class judged by itself, by a sigmoid: mean over images and classes.

    As *ResNet strikes back* (Wightman et al., arXiv 2110.00476) trains: an image mixed of two is both of them.

    Args:
        label_smoothing (float): share of each target that is spread evenly over all classes.

    Inputs:
        logits (Tensor): float32 (B, K).
        label (Tensor): int32 (B,), or float32 (B, K), the share of each class.

    Outputs:
        Tensor: float32 ().
    """

    def __init__(self, label_smoothing=0.0):
        super().__init__()
        self.label_smoothing = label_smoothing

    def construct(self, logits, label):
        classes = logits.shape[1]
        target = label if label.ndim == 2 else ops.one_hot(label, classes, 1, 0)
        target = (1 - self.label_smoothing) * target.astype(ms.float32) + self.label_smoothing / classes
        return ops.binary_cross_entropy_with_logits(logits, target)


def create_loss(config):
    """Return the loss of a `LossConfig`: logits float32 (B, K) and labels, int32 (B,) or float32 (B, K), to ()."""
    if config.name == "binary_cross_entropy":
        return BinaryCrossEntropy(config.label_smoothing)
    return nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
