# SPDX-License-Identifier: Apache-2.0
"""Detectors outside: an image file in, the boxes of things on it out, with labels, scores and perhaps masks."""

import mindspore as ms
import numpy as np
from mindspore import nn

from src.data.letterbox import Letterbox
from src.data.transforms import Pixels
from src.image_size import sides
from src.tasks.box_results import open_results
from src.tasks.box_selection import selected
from src.tasks.found import found_in
from src.training.deployment import DETECTIONS, RAW, Deployment

# Said in each description, so that everyone can write it.
LETTERBOX = {
    "letterbox": "f = min(max(scale) / max(h, w), min(scale) / min(h, w), H / h, W / w); an image of h x w pixels is "
    "resized bilinearly to h' x w', int(f h + 0.5) and int(f w + 0.5), at least 1; it lies at the top left of the "
    "input of H x W, image_size; around it is the mean colour, 0 where it is normalised",
    "inverse": "x w / w' and y h / h' of boxes cut to w' x h'",
}


class BoxDeployment(Deployment):
    """Images of any size, letterboxed into the one of the file; an answer is a `Found`.

    The description has "category_ids", of each label in the data set's file; "mask_size", m, 0 where there are no
    masks; and "selection", see `src.tasks.box_selection`, without "levels" where a network cannot be cut before it.
    Its "preprocessing" has scale, shorter and longer side, and `LETTERBOX`.
    """

    outputs, options = (DETECTIONS, RAW), ("threshold",)
    unit, columns = "of a score, or of a tenth of the longer side in boxes,", ("image", "size", "original")
    refused = {
        "float16": "coordinates of boxes have more digits than it; give --dtype float32",
        "int8": "what it costs is judged by labels alone, which boxes have more than; give --dtype float32",
    }

    def __init__(self, card):
        super().__init__(card)
        if not self.selection.get("levels"):
            self.outputs = (DETECTIONS,)

    @property
    def selection(self):
        given = self.card.get("selection")
        return given if isinstance(given, dict) else {}

    def wrong(self):
        selection, ids, mask = self.selection, self.card.get("category_ids"), self.card.get("mask_size")
        try:
            shorter, longer = self.spec["scale"]
            if not all(1 <= side <= 100_000 for side in (shorter, longer)):
                raise ValueError("scale takes two sides in pixels")
            if self.spec["in_channels"] != 3:
                raise ValueError("in_channels takes 3")
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            return f"preprocessing cannot be used ({error})"
        if not is_whole_numbers(ids) or len(ids) != len(self.labels):
            return f"category_ids are not one number for each of the {len(self.labels)} labels"
        if not is_whole_numbers([mask]) or mask < 0:
            return "mask_size is missing or no number"
        counts = [selection.get("count"), selection.get("of_level")]
        is_share = all(
            type(selection.get(name)) in (int, float) and 0 <= selection[name] <= 1 for name in ("threshold", "iou")
        )
        if not is_whole_numbers(counts) or min(counts) < 1 or not is_share:
            return "selection takes count, of_level, threshold and iou"
        if not is_whole_numbers(selection.get("levels", [])):
            return "selection.levels are not numbers of anchors"
        return ""

    def results(self, form, images):
        if form == RAW:
            anchors = sum(self.selection["levels"])
            return {"boxes": [images, anchors, 4], "scores": [images, anchors, len(self.labels)]}
        count, mask = self.selection.get("count"), self.card.get("mask_size")
        places = {"boxes": [images, count, 4], "scores": [images, count], "labels": [images, count]}
        masks = {"masks": [images, count, mask, mask]} if mask else {}
        return {**places, **masks, "count": [images]}

    def served(self, network, form):
        return Candidates(network) if form == RAW else Counted(network)

    def difference(self, form, computed, expected):
        if form == RAW:
            if computed[0].shape[1] != sum(self.selection["levels"]):
                return np.nan
            computed = [np.stack(part) for part in zip(*(selected(*each, self.selection) for each in zip(*computed)))]
        elif not np.array_equal(computed.pop(), (computed[2] >= 0).sum(1)):
            return np.nan
        unit = max(self.spec["image_size"]) / 10
        pairs = zip(zip(*computed), zip(*expected), strict=True)
        return max(distance(*pair, unit, self.selection["threshold"]) for pair in pairs)

    def at_once(self, batch_size):
        return batch_size

    @property
    def letterbox(self):
        """What makes the file's images."""
        spec = self.spec
        return Letterbox(sides(spec["image_size"]), spec["scale"], spec["mean"], spec["std"], self.as_pixels)

    def steps(self, name):
        letterbox = self.letterbox

        def boxed(pixels):
            return *letterbox(pixels), np.array(pixels.shape[:2])

        return [Pixels(lambda image, position: image, name, self.spec["orientation"]), boxed]

    def detections(self, run, images, sizes):
        """Yield boxes (N, 4), scores, labels, -1 where there are no more, and perhaps masks, of each of `images`.

        Without selection in the file, boxes are cut to their pictures, of `sizes` (B, 2), before it, as training does.
        """
        for (boxes, *found), size in zip(run(images), sizes):
            if self.form == RAW:
                yield selected(np.minimum(boxes, np.tile(size[::-1], 2)), *found, self.selection)
            else:
                # A file says how many they are last, a network does not.
                yield boxes, *found[: 2 + bool(self.card["mask_size"])]

    def answers(self, run, images, sizes, originals):
        for found, size, original in zip(self.detections(run, images, sizes), sizes, originals.tolist()):
            yield found_in(tuple(original), size, *found)

    def found(self, answer):
        return answer.labels

    def open_results(self, folder, arguments):
        return open_results(folder, arguments, self.labels, self.card["category_ids"], self.spec["orientation"])


class Counted(nn.Cell):
    """A detector that says last how many of its places are filled, int32 (B,)."""

    def __init__(self, network):
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, image):
        found = self.network(image)
        return (*found, (found[2] >= 0).astype(ms.float32).sum(1).astype(ms.int32))


class Candidates(nn.Cell):
    """A detector without selection."""

    def __init__(self, network):
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, image):
        return self.network.candidates(image)


class FileAnswers:
    """The answers of a file, as `src.tasks.box_judge.BoxAnswers` gives those of a network.

    Args:
        deployment (BoxDeployment): of the file.
        run (Runner): the file.
    """

    def __init__(self, deployment, run):
        self.deployment, self.run, self.step = deployment, run, self

    def set_train(self, mode):
        pass

    def compile(self):
        # What MindSpore compiles, it does at the first call.
        letterbox = self.deployment.letterbox
        picture, _ = letterbox(np.zeros((*letterbox.whole, 3), np.uint8))
        list(self.run([picture]))

    def __call__(self, image, size):
        found = self.deployment.detections(self.run, image.asnumpy(), size.asnumpy())
        return [np.stack(part) for part in zip(*found)]


def distance(computed, expected, unit, threshold):
    """Return by how much the detections of one image differ from those of the network.

    Each is compared with the nearest of its label, wherever that stands: rounding may change the order of near scores.
    One that is missing counts by how much its score is above the least that would have been given.

    Args:
        computed, expected (tuple): boxes (N, 4), scores (N,), labels (N,) and perhaps masks (N, m, m).
        unit (float): how many pixels are as much as a whole score.
        threshold (float): of scores.
    """
    boxes, scores, labels, *masks = computed
    left, farthest = set(np.flatnonzero(labels >= 0).tolist()), 0.0
    is_full = (expected[2] >= 0).all()
    least = max(threshold, float(expected[1].min())) if is_full else threshold
    for box, score, label, *mask in zip(*expected):
        if label < 0:
            continue
        same = [place for place in left if labels[place] == label]
        apart = [max(np.abs(boxes[place] - box).max() / unit, abs(scores[place] - score)) for place in same]
        alone = float(score) - least
        if not apart or min(apart) > max(alone, 0) + 1e-12:
            farthest = max(farthest, alone)
            continue
        nearest = same[int(np.argmin(apart))]
        left.remove(nearest)
        of_mask = np.abs(masks[0][nearest] - mask[0]).max() if masks else 0
        farthest = max(farthest, min(apart), of_mask)
    return max([farthest, *(float(scores[place]) - least for place in left)])


def is_whole_numbers(values):
    return isinstance(values, list) and all(type(value) is int for value in values)
