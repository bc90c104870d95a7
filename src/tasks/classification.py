# SPDX-License-Identifier: Apache-2.0
"""Classification: which class an image as a whole is of."""

import dataclasses
from pathlib import Path

import numpy as np

from src.data.check_data import check_data
from src.data.class_names import FILE
from src.data.classes import Classes, classes_to_train, numbers_of_split
from src.data.dataset import create_dataset
from src.data.digits import write_digits
from src.data.image_folder import list_images, list_split
from src.data.transforms import preprocessing
from src.data.yardstick import CropByOpenCV
from src.errors import UserError
from src.tasks.class_deployment import ClassDeployment, class_labels, judge_of_file
from src.tasks.class_judge import ClassJudge, EvaluationStep
from src.tasks.pretrained_classes import load_pretrained
from src.training.deployment import refuse_other_images
from src.training.losses import class_weights, create_loss
from src.training.network import build_network
from src.training.parallel import sum_over_workers
from src.training.task import Task


class Classification(Task):
    """Images in folders, of a CIFAR or of IDX files; cross entropy; top-1 and top-5.

    Args:
        config (Config): the experiment.
        build_model: `build_model(config.model)` makes the network.
    """

    best, best_name, drawn = "top1", "top-1", {"top1": "top-1", "top5": "top-5"}
    deployment = ClassDeployment
    as_pixels = False  # whether images to evaluate with are to be normalised by a file

    def __init__(self, config, build_model=build_network):
        super().__init__(config)
        self.build_model = build_model

    def build(self):
        return self.build_model(self.config.model)

    def open_to_train(self):
        data = self.config.data
        self.splits = {split: list_split(data, split) for split in ("train", "val")}
        classes = classes_to_train(data, *self.splits.values(), self.config.model.num_classes)
        self._number(classes, f"the run in {self.config.output_dir}")

    def open_to_judge(self, record, whose):
        self.splits = {"val": list_split(self.config.data, "val")}
        self.adopt(record, whose)

    def record(self):
        return self.classes.to_record()

    def adopt(self, record, whose):
        self._number(Classes.recorded(record, self.config.model.num_classes), whose)

    def _number(self, classes, whose):
        """Give the classes of the images the numbers they have in `classes` (`Classes`), by their names."""
        self.classes, self.numbers, self.notes = classes, {}, []
        self.images = {split: images.images for split, images in self.splits.items()}
        for split, images in self.splits.items():
            self.numbers[split], notes = numbers_of_split(classes, self.config.data, images, whose)
            self.notes += notes

    def load_pretrained(self, network, path):
        loaded, classes = load_pretrained(network, path, self.classes)
        self._number(classes, f"checkpoint {path}")
        return loaded

    def check(self, splits, world):
        check_data(self.config.data, splits, world, sum_over_workers)

    def list_files(self, split):
        data = self.config.data
        if data.name == "digits":
            write_digits(data.data_dir)
        listed = list_images(Path(data.data_dir, split))
        if listed.empty:
            raise UserError(f"class folder {listed.folder / listed.empty[0]} has no image; fill or remove it")
        return listed

    def files_beside(self):
        return [FILE] if Path(self.config.data.data_dir, FILE).exists() else []

    def yardstick(self):
        return "OpenCV decode and crop", CropByOpenCV(self.config)

    def batches(self, split, world, epoch=0):
        config = self.config
        return create_dataset(
            *(config.data, config.model.size, config.model.in_channels, split),
            *(world.rank, world.size, config.train.seed, epoch),
            as_pixels=self.as_pixels,
            numbers=self.numbers[split],
        )

    def made_up(self, images):
        model = self.config.model
        pixels = np.random.default_rng(0).standard_normal((images, model.in_channels, *model.size), np.float32)
        return pixels, np.arange(images, dtype=np.int32)

    def loss(self, network):
        recipe = self.config.loss
        if recipe.class_weights == "none":
            return create_loss(recipe)
        counts = self.splits["train"].counts() if recipe.class_weights == "balanced" else None
        return create_loss(recipe, class_weights(recipe, counts, self.numbers["train"]))

    def judge(self, forward):
        model = self.config.model
        images = np.zeros((self.config.data.batch_size, model.in_channels, *model.size), np.float32)
        return ClassJudge(EvaluationStep(forward), images, self.classes.names)

    def describe(self, meta, network):
        classes = class_labels(self.config, meta)
        return {"preprocessing": self.preprocessing(), "labels": classes.names, "classes": classes.folders}

    def preprocessing(self):
        model = self.config.model
        return preprocessing(self.config.data, model.image_size, model.in_channels)

    def judge_file(self, model, whose):
        deployment, data = self.deployment(model.card), self.config.data
        refuse_other_images(whose, deployment.spec, self.preprocessing())
        data = dataclasses.replace(data, batch_size=model.batch_size or data.batch_size)
        self.config, self.as_pixels = dataclasses.replace(self.config, data=data), deployment.as_pixels
        self.open_to_judge(deployment.classes.to_record(), whose)
        return judge_of_file(model, data.batch_size, self.classes.names)

    def told(self, result):
        return f"top-1 {result['top1']:.2f} %  top-5 {result['top5']:.2f} %  loss {result['loss']:.4f}"
