# SPDX-License-Identifier: Apache-2.0
"""data.train_limit: a few training images of each class, which are the same whatever else a study changes."""

import dataclasses
import gzip
import re
from pathlib import Path

import numpy as np
import pytest
from data_folder import batches, epoch, photo
from idx_files import write_split

from src.config import DataConfig, load_config
from src.data.image_folder import list_images, list_split
from src.data.packing import Packing
from src.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
COUNTS = {"ant": 9, "bee": 3, "cat": 7}
FORMS = ("folder", "packed", "idx")


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """Images of three classes, as files, packed, and of an IDX file in another order; four each to evaluate with."""
    root = tmp_path_factory.mktemp("limit")
    for split, counts in (("train", COUNTS), ("val", dict.fromkeys(COUNTS, 4))):
        for label, (name, count) in enumerate(counts.items()):
            (root / "folder" / split / name).mkdir(parents=True)
            for index in range(count):
                photo(100 * label + index, (20, 20)).save(root / "folder" / split / name / f"{index}.png")
        list(Packing(list_images(root / "folder" / split), root / "packed" / split, 5).run())
        labels = np.random.default_rng(0).permutation(np.repeat(range(3), list(counts.values())))
        pixels = np.random.default_rng(1).integers(0, 256, (len(labels), 20, 20), np.uint8)
        (root / "idx").mkdir(exist_ok=True)
        write_split(root / "idx", split, pixels, labels, gzip.compress)
    names = {"folder": "image_folder", "packed": "image_folder", "idx": "mnist"}
    return {form: DataConfig(names[form], str(root / form), batch_size=1) for form in FORMS}


def limited(data, limit, **changes):
    return dataclasses.replace(data, train_limit=limit, **changes)


@pytest.mark.parametrize("form", FORMS)
def test_so_many_of_each_class(forms, form):
    """At most so many images of a class are trained on, all of one that has fewer, and a line says so."""
    listed = list_split(limited(forms[form], 5), "train")
    assert listed.counts().tolist() == [5, 3, 5] and listed.images == 13
    _, labels = epoch(limited(forms[form], 5), 16, 3, "train")
    assert np.bincount(labels).tolist() == [5, 3, 5]
    *_, line = listed.notes()
    fewer = "1" if form == "idx" else "bee"
    assert re.search(rf"13 of 19 images, at most 5 a class .*1 classes have fewer: {fewer}$", line)
    *_, line = list_split(limited(forms[form], 2), "train").notes()
    assert "6 of 19 images" in line and "fewer" not in line


def test_evaluation_has_all_images(forms):
    """The limit is of training images alone, so that small studies are judged as large ones are."""
    for form in FORMS:
        assert list_split(limited(forms[form], 1), "val").images == 12


@pytest.mark.parametrize("form", FORMS)
def test_the_same_images_for_every_seed_and_worker(forms, form):
    """Seed, epoch and number of workers order them; more workers share them; a larger limit adds to them."""
    whole = limited(forms[form], 4, crop_padding=1, hflip=0.0)

    def seen(data, *args, workers=1):
        parts = [batches(data, 22, 3, "train", rank, workers, *args) for rank in range(workers)]
        return sorted(image.tobytes() for part in parts for image, _ in part)

    # A crop as large as the padded image leaves nothing to chance.
    first = seen(whole, 0, 0)
    assert len(set(first)) == 11
    assert seen(whole, 7, 3) == first
    # Each worker has five, one stays out.
    assert len(shared := seen(whole, 0, 0, workers=2)) == 10 and {*shared} < {*first}
    assert {*first} < {*seen(dataclasses.replace(whole, train_limit=6), 0, 0)}
    chosen = list_split(whole, "train").positions
    assert not np.array_equal(chosen, np.sort(np.concatenate([range(4), range(9, 12), range(12, 16)])))


def test_packed_images_are_those_of_the_folder(forms):
    """Packing does not change which images are drawn: a run may change from one form to the other."""
    first, second = (batches(limited(forms[form], 4), 16, 3, "train", 0, 1, 5, 1) for form in ("folder", "packed"))
    assert len(first) == len(second) == 11
    for one, other in zip(first, second):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])


def test_messages_name_the_image(forms):
    """A position among the drawn images is that of its own file, so that a damaged one is named rightly."""
    listed = list_split(limited(forms["folder"], 2), "train")
    labels = [list(COUNTS).index(listed.path(position).parent.name) for position in range(listed.images)]
    assert labels == listed.list_labels().tolist() == [0, 0, 1, 1, 2, 2]


def test_other_tasks_have_no_classes_of_images():
    """An image with masks or boxes has no class of its own to count by."""
    for name in ("fpn_resnet_scenes", "retinanet_acmix_resnet_scenes"):
        with pytest.raises(UserError, match=r"data\.train_limit belongs to task classification"):
            load_config(ROOT / "config" / f"{name}.yaml", ["--data.train_limit", "5"])
