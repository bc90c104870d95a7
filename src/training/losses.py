# SPDX-License-Identifier: Apache-2.0
"""What training minimises: float32 logits and labels to the mean loss."""

import mindspore as ms
import numpy as np
from mindspore import nn, ops


class Targets(nn.Cell):
    """Labels as the share of each class, float32 (B, K), `label_smoothing` of it spread evenly over all classes.

    Inputs:
        label (Tensor): int32 (B,), or float32 (B, K), the share of each class.
        classes (int): K.
    """

    def __init__(self, label_smoothing):
        super().__init__()
        self.label_smoothing = label_smoothing
        self.one, self.zero = ms.Tensor(1.0, ms.float32), ms.Tensor(0.0, ms.float32)

    def construct(self, label, classes):
        shares = label if label.ndim == 2 else ops.one_hot(label, classes, self.one, self.zero)
        return (1 - self.label_smoothing) * shares + self.label_smoothing / classes


class CrossEntropy(nn.Cell):
    """The classes judged together, by a softmax: mean over images, by the weights of their classes where there are any.

    It is `nn.CrossEntropyLoss`, which takes several times as many kernels for it on an Ascend.

    Args:
        label_smoothing (float): see `Targets`.
        weights (Tensor): float32 (K,), factor on the loss of each class; None: 1.

    Inputs:
        logits (Tensor): float32 (B, K).
        label (Tensor): int32 (B,), or float32 (B, K), the share of each class.

    Outputs:
        Tensor: float32 ().
    """

    def __init__(self, label_smoothing=0.0, weights=None):
        super().__init__()
        self.targets, self.weights = Targets(label_smoothing), weights

    def construct(self, logits, label):
        targets, count = self.targets(label, logits.shape[1]), logits.shape[0]
        if self.weights is not None:
            targets = targets * self.weights
            if label.ndim == 1:
                count = ops.gather(self.weights, label, 0).sum()
        return -(targets * ops.log_softmax(logits)).sum() / count


class BinaryCrossEntropy(nn.Cell):
    """Each class judged by itself, by a sigmoid: mean over images and classes.

    As *ResNet strikes back* (Wightman et al., arXiv 2110.00476) trains: an image mixed of two is both of them.

    Args, Inputs and Outputs are those of `CrossEntropy`.
    """

    def __init__(self, label_smoothing=0.0, weights=None):
        super().__init__()
        self.targets, self.weights = Targets(label_smoothing), weights

    def construct(self, logits, label):
        return ops.binary_cross_entropy_with_logits(logits, self.targets(label, logits.shape[1]), self.weights)


def create_loss(config, weights=None):
    """Return the loss of a `LossConfig`: logits float32 (B, K) and labels, int32 (B,) or float32 (B, K), to ().

    Args:
        weights (numpy.ndarray): (K,), what `class_weights` returned.
    """
    weights = None if weights is None else ms.Tensor(weights, ms.float32)
    kind = BinaryCrossEntropy if config.name == "binary_cross_entropy" else CrossEntropy
    return kind(config.label_smoothing, weights)


def class_weights(config, counts, numbers):
    """Return the factor on the loss of each class that a `LossConfig` with some asks for, (K,).

    "balanced" is N / (K * n): over an epoch of N images, the n of each of the K classes that have any together weigh as
    much as any other's.

    Args:
        counts (numpy.ndarray): training images of each class, in the order of their folders.
        numbers (numpy.ndarray): the number of each of these classes.
    """
    weights = np.empty(len(numbers), np.float32)
    if config.class_weights == "balanced":
        weights[numbers] = counts.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1))
    else:
        weights[numbers] = config.class_weights
    return weights
