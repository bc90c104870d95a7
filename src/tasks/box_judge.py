# SPDX-License-Identifier: Apache-2.0
"""How boxes, and masks in them, are judged: COCO's average precision of results that are kept in files."""

import contextlib
import csv
import json
import os
import socket
from pathlib import Path

import mindspore as ms
import numpy as np

from src.errors import UserError
from src.tasks.coco_ap import NUMBERS, average_precision, truth_of
from src.tasks.found import coco_results, found_in
from src.training.atomic import MARK, replacing
from src.training.parallel import gather_from_workers
from src.training.task import Judge


class BoxAnswers:
    """What a network answers to pictures.

    Args:
        step (nn.Cell): pictures (B, 3, H, W) and the sizes (B, 2) of what is in them to boxes (B, N, 4), scores (B, N),
            labels (B, N), -1 where there is no more box, and perhaps masks (B, N, m, m), probabilities within each box.
        shapes (tuple): the (H, W) that there are.
        images (int): B.

    Outputs: those as arrays.
    """

    def __init__(self, step, shapes, images):
        self.step, self.shapes, self.images = step, shapes, images

    def compile(self):
        for shape in dict.fromkeys(self.shapes):
            pictures = np.zeros((self.images, 3, *shape), np.float32)
            self.step.compile(ms.Tensor(pictures), ms.Tensor(np.tile(np.float32(shape), (self.images, 1))))

    def __call__(self, image, size):
        return [part.asnumpy() for part in self.step(image, size)]


class BoxJudge(Judge):
    """Writes what was found in each image into a file, and lets pycocotools judge all of them.

    Boxes, and masks, go back to the size of the image's file. In memory is one batch; after the last one, on the first
    worker, all results.

    Args:
        answers (BoxAnswers): of the network, or what stands in for them.
        listed (BoxSplit): the images.
        folder (Path): gets bbox.json, and with masks segm.json: results in COCO's format, with the ids of the data set.
            All workers have to share it.
        most (int): detections of an image that are kept, the best.

    `result` has the numbers of `coco_ap.NUMBERS`, of masks as mask_ap, ..., in percent, -1 where there is nothing to
    find, samples, images, and detections, how many there were.
    """

    def __init__(self, answers, listed, folder, most=100):
        self.step, self.answers, self.listed, self.most = answers.step, answers, listed, most
        self.folder = Path(folder)
        self.kinds = ("bbox", "segm") if listed.with_masks else ("bbox",)
        self.ids = listed.category_ids()
        self.part = self.folder / f"part{MARK}{socket.gethostname()}-{os.getpid()}-{id(self)}"

    def compile(self):
        self.answers.compile()

    def begin(self):
        self.samples = self.detections = 0
        self.by_category = {}
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            self.part.write_bytes(b"")

    def add(self, image, size, index):
        boxes, scores, labels, *masks = self.answers(image, size)
        with self._writing(), open(self.part, "a", encoding="utf-8") as file:
            for number, position in enumerate(index.asnumpy().tolist()):
                if position < 0:  # an image that fills up the batch
                    continue
                found = (part[number] for part in (boxes, scores, labels, *masks))
                results = self.results(position, size.asnumpy()[number], *found)
                file.write(json.dumps([position, *results.values()]) + "\n")
                self.samples += 1
                self.detections += len(results["bbox"])
        return labels

    @contextlib.contextmanager
    def _writing(self):
        try:
            yield
        except OSError as error:
            raise UserError(
                f"cannot write results to {self.folder} ({error.strerror}); choose another --output_dir"
            ) from error

    def results(self, position, size, boxes, scores, labels, masks=None):
        """Return what was found in an image, in COCO's format: {kind: list of results}, the best first."""
        found = found_in(self.listed.size(position), size, boxes, scores, labels, masks).only(slice(self.most))
        return coco_results(found, self.listed.image_id(position), self.ids, self.kinds)

    def result(self, world):
        with self._writing():
            os.replace(self.part, self._part_of(world.rank))
        # Which waits until all have written theirs.
        counts = gather_from_workers(np.array([self.samples, self.detections], np.float64), world)
        samples, detections = counts.sum(0).astype(int).tolist()
        if not samples:
            raise UserError("the evaluation saw no image; give a --data_dir with some")
        numbers = np.zeros(1 + len(NUMBERS) * len(self.kinds))
        if world.rank == 0:
            is_whole = self._join(counts[:, 0])
            numbers[0] = is_whole
            numbers[1:] = self._judged() if is_whole else -1
        is_whole, *numbers = gather_from_workers(numbers, world)[0].tolist()
        if not is_whole:
            raise UserError(
                f"worker 0 does not find the results of all {world.size} workers in {self.folder}; give all machines "
                "an --output_dir that they share"
            )
        names = [prefix + name for prefix in ("", "mask_")[: len(self.kinds)] for name in NUMBERS]
        return {**dict(zip(names, numbers, strict=True)), "samples": samples, "detections": detections}

    def _part_of(self, rank):
        return self.folder / f"part{MARK}{rank}"

    def path(self, kind):
        """Return the path of the results of a kind, "bbox" or "segm"."""
        return self.folder / f"{kind}.json"

    def _join(self, counts):
        """Write what all workers found, by image; return whether it was all there."""
        images = []
        for rank, count in enumerate(counts):
            part = self._part_of(rank)
            lines = part.read_text(encoding="utf-8").splitlines() if part.exists() else []
            if len(lines) != count:
                return False
            images += map(json.loads, lines)
            part.unlink()
        images.sort(key=lambda image: image[0])
        for number, kind in enumerate(self.kinds, 1):
            with replacing(self.path(kind)) as temporary, open(temporary, "w", encoding="utf-8") as file:
                results = (json.dumps(result) for image in images for result in image[number])
                file.write("[" + next(results, ""))
                file.writelines(f",\n{result}" for result in results)
                file.write("]\n")
        return True

    def _judged(self):
        """Return the numbers of all kinds, from their files."""
        numbers = []
        for kind in self.kinds:
            results = json.loads(self.path(kind).read_text(encoding="utf-8"))
            judged, self.by_category[kind] = average_precision(truth_of(self.listed, kind), results, kind, self.most)
            numbers += judged.values()
        return numbers

    def write_per_class(self, path, world):
        if world.rank != 0:
            return
        labels = self.listed.labels
        counts = np.bincount(labels[labels >= 0], minlength=len(self.ids))
        names = {"bbox": ("ap", "ap50"), "segm": ("mask_ap", "mask_ap50")}
        with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
            write = csv.writer(file).writerow
            write(("class", "name", "category_id", "boxes", *(name for kind in self.kinds for name in names[kind])))
            for number, (name, id, boxes) in enumerate(zip(self.listed.names, self.ids.tolist(), counts)):
                values = [value for kind in self.kinds for value in self.by_category[kind][id]]
                write([number, name, id, boxes, *("" if value < 0 else f"{value:.2f}" for value in values)])
