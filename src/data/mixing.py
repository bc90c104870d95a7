# SPDX-License-Identifier: Apache-2.0
"""Mixup and cutmix: the images of a batch mixed in pairs, and their labels by the same shares.

Written out because MindSpore's `MixUpBatch` ends the training where its two gamma variates are tiny: at an alpha of 0.2
in one batch of 500.
"""

import numpy as np


class Mixing:
    """Mixes each image of a batch with another of it; the share of the first is drawn from Beta(alpha, alpha).

    Mixup (Zhang et al., arXiv 1710.09412) blends the two, cutmix (Yun et al., arXiv 1905.04899) pastes a rectangle of
    the other into the first; where both are asked for, each batch gets one or the other at even odds.

    Args:
        mixup, cutmix (float): alpha of each, 0: none; not both 0.
        seed (int): batches in the same order are mixed in the same way.

    Inputs: images (B, C, H, W) and labels (B, K), shares of the classes, float32. Outputs: the same.
    """

    def __init__(self, mixup, cutmix, seed):
        self.kinds = [(kind, alpha) for kind, alpha in ((self.blend, mixup), (self.paste, cutmix)) if alpha]
        self.random = np.random.default_rng(seed)

    def __call__(self, images, labels):
        mix, alpha = self.kinds[self.random.integers(len(self.kinds))]
        other = self.random.permutation(len(images))
        images, share = mix(images, images[other], self.random.beta(alpha, alpha))
        return images, share * labels + (1 - share) * labels[other]

    def blend(self, images, others, share):
        """Return `share` of each image and the rest of the other, and `share`."""
        return share * images + (1 - share) * others, share

    def paste(self, images, others, share):
        """Return the images with a rectangle of about 1 - `share` of their area from the others, and what is left.

        The rectangle has the images' proportions and its centre anywhere; what stands out is cut off.
        """
        height, width = images.shape[2:]
        rows, columns = self.span(height, share), self.span(width, share)
        images = images.copy()
        images[:, :, rows, columns] = others[:, :, rows, columns]
        return images, 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)

    def span(self, size, share):
        """Return a side of the rectangle, of an image's side of `size` pixels."""
        centre, half = self.random.integers(size), size * np.sqrt(1 - share) / 2
        return slice(max(round(centre - half), 0), min(round(centre + half), size))
