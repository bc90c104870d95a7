# SPDX-License-Identifier: Apache-2.0
"""What training minimises: float32 logits and labels to the mean loss."""

import mindspore as ms
import numpy as np
from mindspore import nn, ops


class BinaryCrossEntropy(nn.Cell):
    """Each class judged by itself, by a sigmoid: mean over images and classes.

    As *ResNet strikes back* (Wightman et al., arXiv 2110.00476) trains: an image mixed of two is both of them.

    Args:
        label_smoothing (float): share of each target that is spread evenly over all classes.
        weights (Tensor): float32 (K,), factor on the loss of each class; None: 1.

    Inputs:
        logits (Tensor): float32 (B, K).
        label (Tensor): int32 (B,), or float32 (B, K), the share of each class.

    Outputs:
        Tensor: float32 ().
    """

    def __init__(self, label_smoothing=0.0, weights=None):
        super().__init__()
        self.label_smoothing, self.weights = label_smoothing, weights

    def construct(self, logits, label):
        classes = logits.shape[1]
        target = label if label.ndim == 2 else ops.one_hot(label, classes, 1, 0)
        target = (1 - self.label_smoothing) * target.astype(ms.float32) + self.label_smoothing / classes
        return ops.binary_cross_entropy_with_logits(logits, target, self.weights)


def create_loss(config, weights=None):
    """Return the loss of a `LossConfig`: logits float32 (B, K) and labels, int32 (B,) or float32 (B, K), to ().

    Args:
        weights (numpy.ndarray): (K,), what `class_weights` returned.
    """
    weights = None if weights is None else ms.Tensor(weights, ms.float32)
    if config.name == "binary_cross_entropy":
        return BinaryCrossEntropy(config.label_smoothing, weights)
    return nn.CrossEntropyLoss(weights, label_smoothing=config.label_smoothing)


def class_weights(config, counts, numbers):
    """Return the factor on the loss of each class that a `LossConfig` asks for, (K,); None where it asks for none.

    "balanced" is N / (K * n): over an epoch of N images, the n of each class together weigh as much as any other's.

    Args:
        counts (numpy.ndarray): training images of each class, in the order of their folders.
        numbers (numpy.ndarray): the number of each of these classes.
    """
    if config.class_weights == "none":
        return None
    is_balanced = config.class_weights == "balanced"
    weights = np.empty(len(numbers), np.float32)
    weights[numbers] = counts.sum() / (len(counts) * counts) if is_balanced else config.class_weights
    return weights
