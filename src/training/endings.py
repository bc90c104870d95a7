# SPDX-License-Identifier: Apache-2.0
"""What files of classifiers, and of classifiers of pixels, may give in place of logits."""

import mindspore as ms
from mindspore import nn, ops

# By name: the numbers of each class along axis 1; those, positive with sum 1; or the class, int32.
LOGITS, PROBABILITIES, CLASSES = "logits", "probabilities", "classes"


class Ending(nn.Cell):
    """A network that gives one of these.

    Args:
        network (nn.Cell): images (B, C, H, W) to logits (B, K, ...).
        form (str): `LOGITS`, `PROBABILITIES`, or `CLASSES` (B, ...).
    """

    def __init__(self, network, form):
        super().__init__(auto_prefix=False)
        self.network, self.form = network, form
        self.softmax, self.argmax = ops.Softmax(1), ops.Argmax(1, ms.int32)

    def construct(self, image):
        out = self.network(image)
        if self.form == PROBABILITIES:
            return self.softmax(out)
        return self.argmax(out) if self.form == CLASSES else out
