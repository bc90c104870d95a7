# SPDX-License-Identifier: Apache-2.0
"""The function that an exported file holds: a network with what clients want to have before and after it."""

import mindspore as ms
import numpy as np
from mindspore import nn

from src.training.precision import mixed_precision


class Serving(nn.Cell):
    """A network with its input named as in exported files.

    Args:
        network (nn.Cell): images (B, C, H, W), normalised, to results, see `src.training.deployment`.
        normalisation (dict): mean and std of pixels between 0 and 1, a number for each channel; takes pixels, uint8
            (B, H, W, C), in place of images. None: takes images.
    """

    def __init__(self, network, normalisation=None):
        super().__init__(auto_prefix=False)
        self.network = network
        self.takes_pixels = normalisation is not None
        if self.takes_pixels:
            mean, std = np.array(normalisation["mean"]), np.array(normalisation["std"])
            self.scale, self.offset = _by_channel(1 / (255 * std)), _by_channel(-mean / std)
        self.set_train(False)

    def construct(self, image):
        if self.takes_pixels:
            image = image.astype(ms.float32).transpose(0, 3, 1, 2) * self.scale + self.offset
        return self.network(image)


def _by_channel(numbers):
    return ms.Tensor(numbers[:, None, None].astype(np.float32))


class HalfPrecision(nn.Cell):
    """A `Serving` of one result in float16: its parameters, all arithmetic but that of norms and softmax, and that."""

    def __init__(self, serving):
        super().__init__(auto_prefix=False)
        for parameter in serving.get_parameters():
            parameter.set_dtype(ms.float16)
        serving.network = mixed_precision(serving.network, "O3")
        self.serving = serving
        self.set_train(False)

    def construct(self, image):
        out = self.serving(image)
        return out if out.dtype == ms.int32 else out.astype(ms.float16)
