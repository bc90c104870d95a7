# SPDX-License-Identifier: Apache-2.0
"""Semantic segmentation: which class each pixel of an image is of."""

from pathlib import Path

import numpy as np

from src.data.class_colours import palette, read_classes, to_text
from src.data.classes import listed
from src.data.pixels import check_pixels, class_names, create_pixel_dataset, list_pixel_files, list_pixels
from src.data.transforms import pixels_of
from src.data.windows import usual_stride
from src.data.yardstick import PairByOpenCV
from src.errors import UserError
from src.image_size import sides
from src.models.segmenter import HEADS, create_segmenter
from src.tasks.pixel_answers import SlidingWindows, WholeImages
from src.tasks.pixel_deployment import FileAnswers, PixelDeployment
from src.tasks.pixel_judge import PixelJudge
from src.tasks.pretrained_backbone import load_backbone
from src.training.deployment import Runner, refuse_other_images
from src.training.network import build_on_features
from src.training.parallel import sum_over_workers
from src.training.pixel_losses import PixelCrossEntropy, SegmentationLoss
from src.training.task import Task


class Segmentation(Task):
    """Folders of images and masks; cross entropy of every pixel; mean intersection over union."""

    best, best_name, drawn = "miou", "mIoU", {"miou": "mIoU", "macc": "mAcc", "aacc": "aAcc"}

    heads, usual_classes = tuple(HEADS), 150
    deployment = PixelDeployment
    judged_at_once = 1  # each has a size of its own

    def build(self):
        settings = self.config.segmentation
        named = {"dropout": settings.dropout, "init_std": settings.init_std}
        return build_on_features(create_segmenter, self.config.model, **named)

    def open_to_train(self):
        self._open("train", "val")

    def open_to_judge(self, record, whose):
        self._open("val")
        self.adopt(record, whose)

    def _open(self, *splits):
        data, settings = self.config.data, self.config.segmentation
        self.splits = {split: list_pixels(self.config, split) for split in splits}
        self.names = class_names(data, settings, self.config.model.num_classes)
        self.images = {split: listed.images for split, listed in self.splits.items()}
        self.notes = [line for listed in self.splits.values() for line in listed.notes()]

    def record(self):
        return {"classes": self.names}

    def adopt(self, record, whose):
        names = record.get("classes") or self.names
        if names != self.names:
            raise UserError(
                f"{whose} knows the classes {listed(names)}, and segmentation.class_names says "
                f"{listed(self.names)}; masks are numbers: give the names it was trained with"
            )

    def load_pretrained(self, network, path):
        """A classifier's weights are those of the backbone; a segmenter's those of the whole."""
        return load_backbone(network, path)

    def check(self, splits, world):
        problems = 0
        for split in splits:
            problems += check_pixels(self.config, list_pixels(self.config, split), world)
        if problems := int(sum_over_workers(np.array([problems], np.float32), world)[0]):
            raise UserError(f"{problems} image(s) or mask(s) cannot be used, named above; mend or remove them")

    def list_files(self, split):
        if split not in ("train", "val"):
            raise UserError(f"split {split} is none of segmentation, which has train and val")
        return list_pixel_files(self.config, split)

    def files_beside(self):
        class_names(self.config.data, self.config.segmentation, self.config.model.num_classes)
        return [name for name in [self.config.segmentation.class_names] if name]

    def yardstick(self):
        return "OpenCV, the same steps", PairByOpenCV(self.config)

    def batches(self, split, world, epoch=0):
        return create_pixel_dataset(self.config, self.splits[split], split, world, epoch)

    def made_up(self, images):
        model, random = self.config.model, np.random.default_rng(0)
        pixels = random.standard_normal((images, model.in_channels, *model.size), np.float32)
        return pixels, random.integers(0, model.num_classes, (images, *model.size), np.int32)

    def loss(self, network):
        settings = self.config.segmentation
        return SegmentationLoss(PixelCrossEntropy(settings.ignore_label, settings.average), settings.auxiliary_weight)

    def judge(self, forward):
        settings, window = self.config.segmentation, self.config.model.size
        if settings.window_stride:
            return self._judge(SlidingWindows(forward, window, sides(settings.window_stride)))
        return self._judge(WholeImages(forward))

    def _judge(self, answers):
        settings = self.config.segmentation
        return PixelJudge(answers, self.names, settings.ignore_label, settings.eval_flip)

    def describe(self, meta, network):
        data, settings, classes = self.config.data, self.config.segmentation, self.config.model.num_classes
        path = Path(data.data_dir or "", settings.class_names)
        names, colours = [str(number) for number in range(classes)], [None] * classes
        # Elsewhere than where it was trained, a checkpoint knows the names.
        if settings.class_names and path.is_file():
            names, colours = read_classes(path, classes)
        usual = palette(classes + 1)[settings.reduce_zero_label :]
        return {
            "preprocessing": self.preprocessing(self.config.model.size),
            "labels": meta.get("classes") or names,
            "colours": [colour or to_text(other) for colour, other in zip(colours, usual)],
            "ignore_label": settings.ignore_label,
            "reduce_zero_label": settings.reduce_zero_label,
        }

    def preprocessing(self, window):
        """Return the steps from an image to windows of the size (H, W), as JSON values; see `PixelDeployment`."""
        settings = self.config.segmentation
        return {
            "stride": list(usual_stride(window)),
            "scale": list(settings.scale),
            "divisor": settings.divisor,
            **pixels_of(self.config.data, window, self.config.model.in_channels),
        }

    def judge_file(self, model, whose):
        deployment = self.deployment(model.card)
        wanted = self.preprocessing(deployment.spec["image_size"])
        refuse_other_images(whose, deployment.spec, {**wanted, "stride": deployment.spec["stride"]})
        self.open_to_judge({"classes": deployment.labels}, whose)
        run = Runner(model.results, model.batch_size or 1)
        return self._judge(FileAnswers(deployment, run))

    def told(self, result):
        sizes = f"{result['sizes']} image size{'s' * (result['sizes'] != 1)} compiled"
        miou = f"{result['miou']:.2f} % (all of one class: {result['trivial']:.2f} %)"
        return f"mIoU {miou}  mAcc {result['macc']:.2f} %  aAcc {result['aacc']:.2f} %  ({sizes})"
