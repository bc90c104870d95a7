# SPDX-License-Identifier: Apache-2.0
"""Files that hold pixels, CIFAR's and MNIST's: each image with its label, cropped and shared out as folders are."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from data_folder import trained_classes
from idx_files import write_split

from src.config import load_config
from src.data import create_dataset, iterate
from src.data.image_folder import list_split
from src.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
SIZES = {
    "cifar10": {"test_batch.bin": 10_000, **{f"data_batch_{number}.bin": 10_000 for number in range(1, 6)}},
    "cifar100": {"train.bin": 50_000, "test.bin": 10_000},
}
NAMES = {"cifar10": "batches.meta.txt", "cifar100": "fine_label_names.txt"}
CLASSES = {"cifar10": 10, "cifar100": 100, "mnist": 10}
CONFIGS = {"cifar10": "acmix_resnet_cifar10", "cifar100": "acmix_resnet_cifar100", "mnist": "acmix_resnet_fashion"}


def pixels_of(name, numbers):
    """Return the images of these numbers as evaluation shows them, (n, 3, 32, 32): smooth, and told apart by a colour.

    Those of MNIST's form are grey, told apart by their halves, with two black pixels around them.
    """
    y, x = np.mgrid[:32, :32]
    if name == "mnist":
        first, second = (half[:, None, None] for half in np.divmod(numbers, 100))
        grey = (1 + 2 * x + y + np.where(y < 16, first, second)).astype(np.uint8)
        grey = np.pad(grey[:, 2:30, 2:30], [(0, 0), (2, 2), (2, 2)])
        return np.repeat(grey[:, None], 3, 1)
    red, green = np.divmod(numbers, 200)
    flat = np.stack([red, green, numbers % 251], 1).astype(np.uint8)[:, :, None, None]
    return np.broadcast_to(flat, (len(numbers), 3, 32, 32)) // 2 + (2 * x + y).astype(np.uint8)


def write_cifar(name, folder):
    """Write the binary files of a CIFAR; the training images are a sparse file of zeros."""
    labels = 1 if name == "cifar10" else 2
    for file, records in SIZES[name].items():
        (folder / file).touch()
        os.truncate(folder / file, records * (labels + 3072))
        if "test" in file:
            numbers = np.arange(records)
            rows = [np.full(records, 77, np.uint8)] * (labels - 1) + [(numbers % CLASSES[name]).astype(np.uint8)]
            content = np.concatenate([np.stack(rows, 1), pixels_of(name, numbers).reshape(records, 3072)], 1)
            content.tofile(folder / file)
    names = "\n".join(f"class{number}" for number in range(CLASSES[name]))
    (folder / NAMES[name]).write_text(names + "\n\n")


def write_mnist(name, folder):
    """Write the IDX files of MNIST's form; the training images are black."""
    numbers = np.arange(10_000)
    write_split(folder, "train", np.zeros((50_000, 28, 28)), np.zeros(50_000))
    write_split(folder, "t10k", pixels_of(name, numbers)[:, 0, 2:30, 2:30], numbers % CLASSES[name])


@pytest.fixture(scope="module", params=CLASSES)
def config(request, tmp_path_factory):
    """The files of one of them, evaluation images numbered."""
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    words = ["--data_dir", str(folder), "--data.mean", "[0, 0, 0]", "--data.std", "[1, 1, 1]", "--data.batch_size=128"]
    if name == "mnist":
        write_mnist(name, folder)
        names = ", ".join(f"class{number}" for number in range(CLASSES[name]))
        words += ["--model.in_channels=3", f"--data.class_names=[{names}]"]
    else:
        write_cifar(name, folder)
    return load_config(ROOT / "config" / f"{CONFIGS[name]}.yaml", words)


def epoch(data, split, *args):
    parts = [(image.asnumpy(), label.asnumpy()) for image, label in iterate(create_dataset(data, 32, 3, split, *args))]
    return np.concatenate([image for image, _ in parts]), np.concatenate([label for _, label in parts])


def test_evaluation_sees_every_image_once(config):
    """Over two workers, whole and unscaled, with its fine label; the class names are the file's."""
    seen = {}
    for rank in range(2):
        images, labels = epoch(config.data, "val", rank, 2)
        assert (images.dtype, labels.dtype, images.shape) == (np.float32, np.int32, (5000, 3, 32, 32))
        numbers = np.arange(rank, 10_000, 2)
        np.testing.assert_array_equal(labels, numbers % config.model.num_classes)
        np.testing.assert_array_equal((255 * images).round().astype(np.uint8), pixels_of(config.data.name, numbers))
        seen.update(dict.fromkeys(numbers))
    assert len(seen) == 10_000
    names = [f"class{number}" for number in range(config.model.num_classes)]
    assert trained_classes(config.data, config.model.num_classes).names == names
    labels = list_split(config.data, "val").list_labels()
    np.testing.assert_array_equal(labels, np.arange(10_000) % config.model.num_classes)


def test_training_images(config):
    """Every worker has its own, in an order of seed and epoch; each is a crop, perhaps mirrored, of 4 black pixels.

    Of MNIST's form evaluation shows two of them.
    """
    data = dataclasses.replace(config.data, train_split=config.data.val_split, batch_size=1000)
    margin = 2 if data.name == "mnist" else 4
    images, labels = epoch(data, "train", 0, 2, 7, 3)
    again, _ = epoch(data, "train", 0, 2, 7, 3)
    np.testing.assert_array_equal(images, again)
    order = np.random.default_rng([7, 3]).permutation(10_000)[::2]
    np.testing.assert_array_equal(labels, order % config.model.num_classes)
    offsets = set()
    padded = np.pad(pixels_of(data.name, order[:30]), [(0, 0), (0, 0), (margin, margin), (margin, margin)])
    for image, whole in zip((255 * images).round().astype(np.uint8), padded):
        crops = {
            (y, x, flip): whole[:, y : y + 32, x : x + 32][:, :, ::flip]
            for y in range(2 * margin + 1)
            for x in range(2 * margin + 1)
            for flip in (1, -1)
        }
        found = [place for place, crop in crops.items() if (crop == image).all()]
        assert len(found) == 1
        offsets.update(found)
    assert len(offsets) > 15 and {flip for *_, flip in offsets} == {1, -1}


def test_all_training_files_are_read(config):
    """The training split has its 50,000 images; a batch has the shape that the config's network takes."""
    dataset = create_dataset(config.data, config.model.image_size, 3, "train", 1, 8)
    assert dataset.get_dataset_size() == 50_000 // 8 // 128
    image, label = next(iterate(dataset))
    assert image.shape == (128, 3, 32, 32) and not label.asnumpy().any()


def test_crops_of_one_kind():
    """A crop by scale would do nothing beside one of the padded image: together they are refused."""
    with pytest.raises(UserError, match=r"--data\.crop_scale: .* no effect with data\.crop_padding"):
        load_config(ROOT / "config" / "acmix_resnet_cifar10.yaml", ["--data.crop_scale", "[0.5, 1]"])


@pytest.mark.parametrize("config", SIZES, indirect=True)
def test_mistakes(config, tmp_path):
    """A folder without the files, a damaged one and an unknown split are named, with where to get them."""

    def refused(message, **changes):
        with pytest.raises(UserError, match=message):
            trained_classes(dataclasses.replace(config.data, **changes), config.model.num_classes)

    archive = {"cifar10": r"cifar-10-binary\.tar\.gz", "cifar100": r"cifar-100-binary\.tar\.gz"}[config.data.name]
    refused(rf"cannot read .*{NAMES[config.data.name]} of {config.data.name} .* unpack https.*{archive}", data_dir="x")
    refused("has the splits train and test but not 'val'", val_split="val")
    for file in Path(config.data.data_dir).iterdir():
        (tmp_path / file.name).symlink_to(file)
    damaged = tmp_path / {"cifar10": "data_batch_3.bin", "cifar100": "train.bin"}[config.data.name]
    damaged.unlink()
    refused(rf"cannot read .*{damaged.name}", data_dir=str(tmp_path))
    damaged.write_bytes(b"half")
    refused(rf"{damaged.name} has 4 bytes but takes .* damaged", data_dir=str(tmp_path))
    with pytest.raises(UserError, match=rf"has {config.model.num_classes} classes but model\.num_classes is 7"):
        trained_classes(config.data, 7)
