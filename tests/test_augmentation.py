# SPDX-License-Identifier: Apache-2.0
"""The augmentations of the published recipes: what each does to images and labels, and that they follow the seed."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from src.config import DataConfig
from src.data import create_dataset, iterate
from src.data.mixing import Mixing

GREYS = (60, 120, 180, 240)
EVERYTHING = {"randaugment": 9, "random_erasing": 0.5, "mixup": 0.8, "cutmix": 1.0, "interpolation": "bicubic"}


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    """Four classes of eight images, each image of one grey that tells its class."""
    root = tmp_path_factory.mktemp("flat")
    for label, grey in enumerate(GREYS):
        (root / "train" / f"c{label}").mkdir(parents=True)
        for index in range(8):
            Image.new("RGB", (24, 24), (grey,) * 3).save(root / "train" / f"c{label}" / f"{index}.png")
    return DataConfig(
        data_dir=str(root), batch_size=8, hflip=0.0, crop_scale=[1.0, 1.0], crop_ratio=[1.0, 1.0], mean=[0.0] * 3,
        std=[1.0] * 3,
    )  # fmt: skip


def one_epoch(data, channels=3, **kwargs):
    """Return images (N, C, 16, 16) in 0..255 and labels of one training epoch."""
    made = [(i.asnumpy(), k.asnumpy()) for i, k in iterate(create_dataset(data, 16, channels, "train", **kwargs))]
    images, labels = zip(*made)
    return 255 * np.concatenate(images), np.concatenate(labels)


def test_without_them_images_and_labels_stay(flat):
    """The defaults change nothing: the base against which the others are seen."""
    images, labels = one_epoch(flat)
    assert labels.dtype == np.int32
    np.testing.assert_allclose(images, np.array(GREYS)[labels][:, None, None, None] * np.ones((3, 16, 16)), atol=1)


def test_mixup_blends_pixels_as_it_blends_labels(flat):
    """The grey of each pixel is the mean of the greys of the classes, weighted by their shares in the label."""
    images, shares = one_epoch(dataclasses.replace(flat, mixup=0.8))
    assert shares.dtype == np.float32 and shares.shape == (32, 4)
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-5)
    assert np.sum(shares.max(1) < 0.99) > 4
    expected = shares @ np.array(GREYS, np.float32)
    np.testing.assert_allclose(images, expected[:, None, None, None] * np.ones((3, 16, 16)), atol=1.5)


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.2, 0), (0, 0.2), (0.01, 0.01)])
def test_small_alphas(mixup, cutmix):
    """An epoch of ImageNet meets every variate that a small alpha can give: no batch fails, no label loses a share."""
    mixing, images = Mixing(mixup, cutmix, 0), np.ones((4, 1, 2, 2), np.float32)
    for _ in range(5000):
        mixed, labels = mixing(images, np.eye(4, dtype=np.float32))
        assert mixed.dtype == labels.dtype == np.float32
        np.testing.assert_allclose(mixed, 1, atol=1e-6)
        np.testing.assert_allclose(labels.sum(1), 1, atol=1e-6)


def test_cutmix_pastes_the_area_that_the_label_says(flat):
    """Each pixel is of one of the images, and the area of each class is its share in the label."""
    images, shares = one_epoch(dataclasses.replace(flat, cutmix=1.0))
    distance = np.abs(images[:, 0, :, :, None] - np.array(GREYS))
    assert distance.min(-1).max() < 1
    area = (distance < 1).mean((1, 2))
    np.testing.assert_allclose(area, shares, atol=0.02)
    assert np.sum(shares.max(1) < 0.99) > 4


def test_mixup_and_cutmix_take_turns(flat):
    """With both, a batch is blended or pasted, and both happen."""
    data = dataclasses.replace(flat, mixup=1.0, cutmix=1.0)
    kinds = set()
    for epoch in range(4):
        images, shares = one_epoch(data, epoch=epoch)
        for batch, share in zip(images.reshape(4, 8, -1), shares.reshape(4, 8, 4)):
            mixed = share.max(1) < 0.95
            if mixed.any():
                kinds.add("cutmix" if np.ptp(batch[mixed], axis=1).max() > 10 else "mixup")
    assert kinds == {"mixup", "cutmix"}


def test_erasing_puts_noise_into_rectangles(flat):
    """About the asked part of the images get noise in one rectangle, the others stay; labels stay classes."""
    images, labels = one_epoch(dataclasses.replace(flat, random_erasing=0.5))
    assert labels.dtype == np.int32
    changed = np.abs(images[:, 0] - np.array(GREYS)[labels][:, None, None]) > 1.5
    touched = changed.any((1, 2))
    assert 6 <= touched.sum() <= 26
    for spot in changed[touched]:
        rows, columns = spot.any(1), spot.any(0)
        height, width = np.ptp(np.flatnonzero(rows)) + 1, np.ptp(np.flatnonzero(columns)) + 1
        assert spot.sum() > 0.8 * height * width  # noise seldom falls on the grey itself


def test_randaugment_grows_with_its_strength(flat):
    """Colours and shapes change, and more so at m9 than at m1 (some changes, as equalising, know no strength)."""

    def change(strength):
        data = dataclasses.replace(flat, randaugment=strength)
        epochs = [one_epoch(data, epoch=epoch) for epoch in range(4)]
        return np.mean([np.abs(images[:, 0] - np.array(GREYS)[labels][:, None, None]) for images, labels in epochs])

    weak, strong = change(1), change(9)
    assert 5 < 1.2 * weak < strong


@pytest.mark.parametrize("channels", [1, 3])
def test_all_together_follow_the_seed(flat, channels):
    """The whole recipe gives the same epoch again, another one with another seed, epoch or worker, grey images too."""
    data = dataclasses.replace(flat, **EVERYTHING, mean=[0.0] * channels, std=[1.0] * channels)
    images, labels = one_epoch(data, channels, seed=3, epoch=2)
    again, same_labels = one_epoch(data, channels, seed=3, epoch=2)
    assert images.shape == (32, channels, 16, 16)
    np.testing.assert_array_equal(images, again)
    np.testing.assert_array_equal(labels, same_labels)
    for other in ({"seed": 4, "epoch": 2}, {"seed": 3, "epoch": 3}):
        assert not np.array_equal(images, one_epoch(data, channels, **other)[0])


def test_evaluation_is_not_augmented(flat, tmp_path):
    """Evaluation sees each image as it is, and its labels are classes, whatever training does."""
    data = dataclasses.replace(flat, **EVERYTHING, val_split="train")
    made = [(i.asnumpy(), k.asnumpy()) for i, k in iterate(create_dataset(data, 16, 3, "val"))]
    for image, label in made:
        expected = np.array(GREYS)[label][:, None, None, None] * np.ones((3, 16, 16))
        np.testing.assert_allclose(255 * image, expected, atol=1)
