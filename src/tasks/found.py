# SPDX-License-Identifier: Apache-2.0
"""What a detector found on an image, in the pixels of its file, and the same as COCO writes results."""

from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco

from src.boxes.paste import pasted
from src.data.box_transforms import boxes_in_original


class Found(NamedTuple):
    """Things found on an image, the best first.

    Attributes:
        size (tuple): (H, W) of the image, pixels.
        boxes (numpy.ndarray): float64 (n, 4), x1, y1, x2, y2, within it.
        scores (numpy.ndarray): float32 (n,).
        labels (numpy.ndarray): int (n,), numbers of classes.
        around (numpy.ndarray): float64 (n, 4), the same boxes where they may reach out of the image: masks fill these.
        masks (numpy.ndarray | None): (n, m, m), probabilities.
    """

    size: tuple
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    around: np.ndarray
    masks: np.ndarray | None

    def only(self, chosen):
        """Return those of the things that `chosen`, an index of arrays, says."""
        masks = None if self.masks is None else self.masks[chosen]
        return Found(self.size, *(part[chosen] for part in self[1:5]), masks)

    def mask(self, number):
        """Return where a thing is, uint8 (H, W), 0 or 1, column by column."""
        is_thing = pasted(self.masks[number], self.around[number], *self.size) >= 0.5
        return np.asfortranarray(is_thing, np.uint8)


def found_in(original, size, boxes, scores, labels, masks=None):
    """Return the `Found` of what a network gives for a picture.

    Args:
        original (tuple): (H, W) of the image.
        size (tuple): (H, W) of the picture that was made of it.
        boxes (numpy.ndarray): (N, 4), pixels of the picture; scores (N,); labels (N,), -1 where there is no box; and
            perhaps masks (N, m, m).
    """
    is_there = (labels >= 0) & np.isfinite(scores) & np.isfinite(boxes).all(-1)
    best = np.flatnonzero(is_there)[np.argsort(-scores[is_there], kind="stable")]
    around = boxes_in_original(boxes[best], size, original)
    inside = np.clip(around, 0, [*original[::-1], *original[::-1]])
    return Found(tuple(original), inside, scores[best], labels[best], around, None if masks is None else masks[best])


def coco_results(found, image, ids, kinds):
    """Return what was found as COCO writes results: {kind: list}.

    Args:
        image: id of the image.
        ids (sequence): of each class.
        kinds (sequence): "bbox", and "segm" where there are masks.
    """
    results = {kind: [] for kind in kinds}
    for number, (x1, y1, x2, y2) in enumerate(found.boxes.tolist()):
        named = {"image_id": image, "category_id": int(ids[found.labels[number]])}
        score = float(found.scores[number])
        results["bbox"].append({**named, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score})
        if "segm" in kinds:
            runs = coco.encode(found.mask(number))
            runs["counts"] = runs["counts"].decode()
            results["segm"].append({**named, "segmentation": runs, "score": score})
    return results
