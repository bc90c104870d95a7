# SPDX-License-Identifier: Apache-2.0
"""Detection: boxes around the things on an image, their classes, and perhaps their masks."""

from pathlib import Path

import numpy as np

from src.data.box_split import UNUSED
from src.data.box_transforms import shapes
from src.data.boxes import check_boxes, class_names, create_box_dataset, list_boxes, open_annotations, read_annotations
from src.data.classes import listed
from src.data.transforms import pixels_of
from src.errors import UserError
from src.models.detector import HEADS, create_detector
from src.tasks.box_deployment import LETTERBOX, BoxDeployment, FileAnswers
from src.tasks.box_judge import BoxAnswers, BoxJudge
from src.tasks.pretrained_backbone import load_backbone
from src.training.deployment import Runner, refuse_other_images
from src.training.detection_losses import LOSSES, Total
from src.training.network import build_on_features
from src.training.parallel import sum_over_workers
from src.training.task import Task

_WITH_MASKS = ("maskrcnn", "cascade_maskrcnn")
MASK_SIZE = 28
# Boxes of an image that nobody took: about as many as one of COCO has.
_MADE_UP = 8


class Detection(Task):
    """COCO's JSON and folders of images; COCO's average precision of boxes and masks."""

    best, best_name = "ap", "AP"
    heads, usual_classes = tuple(HEADS), 80
    deployment = BoxDeployment

    def __init__(self, config):
        super().__init__(config)
        self.pictures = None
        self.with_masks = config.model.head in _WITH_MASKS
        self.drawn = {"ap": "AP", "ap50": "AP50", **({"mask_ap": "mask AP"} if self.with_masks else {})}

    def build(self):
        settings = self.config.detection
        changes = {"threshold": settings.threshold, "iou": settings.overlap, "count": settings.max_detections}
        selection = HEADS[self.config.model.head].selection._replace(**changes)
        named = {"init_std": settings.init_std, "selection": selection}
        return build_on_features(create_detector, self.config.model, **named)

    def loss(self, network):
        return Total(LOSSES[self.config.model.head](network))

    def open_to_train(self):
        files = {split: open_annotations(self.config, split, self.with_masks) for split in ("train", "val")}
        self.names = class_names(self.config, files["train"])
        self._open(files)
        if not self.splits["val"].counted:
            raise UserError(
                f"{self.splits['val'].file.path} has no box of a class that is no crowd, so that no AP could be told; "
                "give other images to evaluate on"
            )

    def open_to_judge(self, record, whose):
        file, names = open_annotations(self.config, "val", self.with_masks), record.get("classes")
        # Weights that were converted know numbers only.
        self.names = names or class_names(self.config, file)
        if names and self.config.detection.class_names:
            own = class_names(self.config, file)
            if sorted(own) != sorted(names):
                self._refuse(names, own, whose)
        self._open({"val": file})
        if not self.splits["val"].counted:
            self.notes.append(f"{file.path} has no box of a class that is no crowd: there is no AP, which is -1 then")

    def _open(self, files):
        self.splits = {
            split: list_boxes(self.config, split, file, self.names, self.with_masks) for split, file in files.items()
        }
        self._check_strangers()
        self.images = {split: found.images for split, found in self.splits.items()}
        self.notes = [line for found in self.splits.values() for line in found.notes()]

    def _check_strangers(self):
        """Refuse categories that have boxes and are no classes, where nobody chose the classes by a list."""
        if self.config.detection.class_names:
            return
        for found in self.splits.values():
            used = np.unique(found.file.rows["category"])
            strangers = [found.file.category_names[number] for number in used if found.label_of[number] < 0]
            if strangers:
                raise UserError(
                    f"{found.file.path} has boxes of {listed(strangers)}, which the network does not know; name the "
                    "classes that count in a file, by detection.class_names"
                )

    def record(self):
        """Return what a checkpoint says of the classes, as JSON values."""
        first = next(iter(self.splits.values()))
        return {"classes": self.names, "category_ids": first.category_ids().tolist()}

    def adopt(self, record, whose):
        names = record.get("classes") or self.names
        if names != self.names:
            self._refuse(names, self.names, whose)

    def _refuse(self, names, own, whose):
        raise UserError(
            f"{whose} knows the classes {listed(names)}, and the data set has {listed(own)}; give those it was trained "
            "with, in that order, by detection.class_names"
        )

    def load_pretrained(self, network, path):
        """A classifier's weights are those of the backbone; a detector's those of the whole."""
        return load_backbone(network, path)

    def check(self, splits, world):
        problems = 0
        for split in splits:
            file = read_annotations(self.config, split, self.with_masks)
            problems += check_boxes(self.config, file, split, self.with_masks, world)
        if problems := int(sum_over_workers(np.array([problems], np.float32), world)[0]):
            raise UserError(f"{problems} mistake(s) in images or annotations, named above; mend or remove them")

    def list_files(self, split):
        raise UserError(
            "images with boxes are not packed, nor measured beside OpenCV; train.py reads COCO's files as they are"
        )

    def batches(self, split, world, epoch=0):
        return create_box_dataset(self.config, self.splits[split], split, world, epoch, self.pictures)

    def made_up(self, images):
        model, settings, random = self.config.model, self.config.detection, np.random.default_rng(0)
        height, width = model.size
        pixels = random.standard_normal((images, 3, height, width), np.float32)
        size = np.tile(np.float32([height, width]), (images, 1))
        boxes = np.zeros((images, settings.max_boxes, 4), np.float32)
        labels = np.full((images, settings.max_boxes), UNUSED, np.int32)
        count = min(_MADE_UP, settings.max_boxes)
        # From an eighth to a half of a side, well inside.
        sides = random.uniform(0.125, 0.5, (images, count, 2)) * [width, height]
        corners = random.uniform(0, 1, (images, count, 2)) * ([width, height] - sides)
        boxes[:, :count] = np.concatenate([corners, corners + sides], axis=2)
        labels[:, :count] = random.integers(0, model.num_classes, (images, count))
        if not self.with_masks:
            return pixels, size, boxes, labels
        masks = np.zeros((images, settings.max_boxes, height, width), np.uint8)
        for mask, box in zip(masks.reshape(-1, height, width), boxes.reshape(-1, 4)):
            left, top, right, bottom = np.rint(box).astype(int)
            mask[top:bottom, left:right] = 1
        return pixels, size, boxes, labels, masks

    def judge(self, forward):
        settings = self.config.detection
        pictures = shapes(settings.scale, settings.divisor)
        return self._judge(BoxAnswers(forward, pictures, self.config.data.batch_size))

    def _judge(self, answers):
        folder = Path(self.config.output_dir, "results")
        return BoxJudge(answers, self.splits["val"], folder, self.config.detection.max_detections)

    def describe(self, meta, network):
        model, settings = self.config.model, self.config.detection
        names = meta.get("classes") or [str(number) for number in range(model.num_classes)]
        selection = {
            "threshold": settings.threshold,
            "of_level": HEADS[model.head].selection.of_level,
            "iou": settings.overlap,
            "count": settings.max_detections,
        }
        if hasattr(network, "levels"):
            levels = network.levels(model.size)
            most = sum(min(HEADS[model.head].selection.of_level, anchors * model.num_classes) for anchors in levels)
            selection.update(count=min(most, settings.max_detections), levels=levels)
        return {
            "preprocessing": self.preprocessing(model.size),
            "labels": names,
            "category_ids": meta.get("category_ids") or list(range(len(names))),
            "mask_size": MASK_SIZE * self.with_masks,
            "selection": selection,
        }

    def preprocessing(self, shape):
        """Return the steps from an image to an input of the shape (H, W), as JSON values; see `BoxDeployment`."""
        return {
            "scale": list(self.config.detection.scale),
            **LETTERBOX,
            **pixels_of(self.config.data, shape, self.config.model.in_channels),
        }

    def judge_file(self, model, whose):
        deployment = self.deployment(model.card)
        refuse_other_images(whose, deployment.spec, self.preprocessing(deployment.spec["image_size"]))
        self.open_to_judge({"classes": deployment.labels}, whose)
        self.pictures = deployment.letterbox
        return self._judge(FileAnswers(deployment, Runner(model.results, model.batch_size or 1)))

    def told(self, result):
        parts = [("AP", "ap"), ("AP50", "ap50"), ("AP75", "ap75")]
        parts += [("mask AP", "mask_ap"), ("mask AP50", "mask_ap50")] if "mask_ap" in result else []
        words = (f"{name} {'none' if result[key] < 0 else f'{result[key]:.2f} %'}" for name, key in parts)
        return f"{'  '.join(words)}  ({result['detections']} boxes)"
