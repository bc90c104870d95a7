# SPDX-License-Identifier: Apache-2.0
"""What the training of a segmenter minimises: the cross entropy of every pixel."""

import mindspore as ms
from mindspore import nn, ops

from src.ops.resize import resized_with_classes_last

AVERAGES = ("all", "valid")


class PixelCrossEntropy(nn.Cell):
    """The mean cross entropy of pixels, those without a class left out.

    Args:
        ignore_label (int): the label of pixels without a class.
        average (str): over "all" pixels, also those without a class, as mmsegmentation has it; or over the "valid".

    Inputs:
        logits (Tensor): float32 (B, K, h, w), resized to the label's size.
        label (Tensor): int32 (B, H, W).

    Outputs:
        Tensor: float32 (); 0 where no pixel has a class.
    """

    def __init__(self, ignore_label=255, average="all"):
        super().__init__()
        if average not in AVERAGES:
            raise ValueError(f"average must be one of {', '.join(AVERAGES)}, got {average!r}")
        self.ignore_label, self.over_all = ignore_label, average == "all"

    def construct(self, logits, label):
        logits = resized_with_classes_last(logits, label.shape[1:]).reshape(-1, logits.shape[1])
        labels = label.transpose(2, 1, 0).reshape(-1)
        total = ops.cross_entropy(logits, labels, ignore_index=self.ignore_label, reduction="sum")
        if self.over_all:
            return total / label.size
        count = ops.not_equal(label, self.ignore_label).astype(ms.float32).sum()
        return total / ops.maximum(count, 1.0)


class SegmentationLoss(nn.Cell):
    """The loss of a `Segmenter`'s head, and of its auxiliary head, if it has one, times `auxiliary_weight`.

    Inputs: the tuple of logits that a `Segmenter` gives in training, and the label. Outputs: float32 ().
    """

    def __init__(self, loss, auxiliary_weight=0.4):
        super().__init__()
        self.loss, self.auxiliary_weight = loss, auxiliary_weight

    def construct(self, logits, label):
        loss = self.loss(logits[0], label)
        if len(logits) > 1:
            loss = loss + self.auxiliary_weight * self.loss(logits[1], label)
        return loss
