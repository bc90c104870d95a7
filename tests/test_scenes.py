# SPDX-License-Identifier: Apache-2.0
"""The scenes, digits on photographs: the same everywhere, whole, and what their annotations say of them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from src.data import scenes
from src.data.scenes import CATEGORY_IDS, NAMES, write_scenes
from src.errors import UserError

COUNTS = {"training": 40, "validation": 20}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "scenes"
    write_scenes(folder, COUNTS)
    return folder


def masks(folder, split):
    return [np.asarray(Image.open(path)) for path in sorted((folder / "annotations" / split).glob("*.png"))]


def test_the_same_scenes_each_time(folder, tmp_path):
    """Protects figures from data that differs: the checksum is that of any other machine."""
    write_scenes(tmp_path / "again", COUNTS)
    assert (tmp_path / "again" / "checksum.txt").read_text() == (folder / "checksum.txt").read_text()
    with pytest.raises(UserError, match="takes a new folder"):
        write_scenes(folder.parent)


def test_what_a_scene_has(folder):
    """All classes, pixels without one, scenes without digits, and sizes that differ; images as large as masks."""
    assert (folder / "class_names.txt").read_text().split() == [*NAMES]
    for split, count in COUNTS.items():
        found = masks(folder, split)
        assert len(found) == count and len({mask.shape for mask in found}) > 5
        for index, mask in enumerate(found):
            with Image.open(folder / "images" / split / f"{index:05d}.jpg") as image:
                assert image.size == mask.shape[::-1]
    values = np.unique(np.concatenate([mask.ravel() for mask in masks(folder, "training")]))
    assert values.tolist() == [*range(12)]
    assert any((mask == 11).all() for mask in masks(folder, "training"))


def test_nothing_is_shared_by_training_and_validation():
    """Protects the accuracies: no digit, and no part of a photograph, is in both."""
    (train, photographs), (validation, others) = scenes._sources("training"), scenes._sources("validation")
    assert len(train) + len(validation) == 1797
    seen = {digit.tobytes() for digit, _ in train}
    assert sum(digit.tobytes() in seen for digit, _ in validation) == 0
    for left, right in zip(photographs, others):
        assert abs(left.shape[1] - right.shape[1]) <= 1 and not np.array_equal(left[:, -1], right[:, 0])


def decoded(shape, height, width):
    """The pixels of COCO's runs, column by column."""
    ends = np.cumsum(shape["counts"])
    values = np.zeros(height * width, bool)
    for first, last in zip(ends[::2], ends[1::2]):
        values[first:last] = True
    return values.reshape(width, height).T


@pytest.mark.parametrize("split", COUNTS)
def test_annotations_are_of_the_masks(split, folder):
    """Boxes, areas and runs of what is seen; polygons and runs both occur, and crowds, and category ids with gaps."""
    content = json.loads((folder / f"instances_{split}.json").read_text())
    assert sorted(category["id"] for category in content["categories"]) == sorted(CATEGORY_IDS)
    names = {category["id"]: category["name"] for category in content["categories"]}
    found, kinds = masks(folder, split), set()
    for annotation in content["annotations"]:
        image = content["images"][annotation["image_id"]]
        # The number that its file is named by: by that `infer.py` knows it.
        assert image["id"] == annotation["image_id"] == int(Path(image["file_name"]).stem)
        mask, shape = found[image["id"]], annotation["segmentation"]
        x, y, width, height = annotation["bbox"]
        kinds.add((type(shape), annotation["iscrowd"]))
        assert mask.shape == (image["height"], image["width"]) and min(width, height) > 0
        if annotation["iscrowd"]:
            assert not mask[decoded(shape, *mask.shape)].any()
            continue
        label = 1 + NAMES.index(names[annotation["category_id"]])
        there = mask[y : y + height, x : x + width] == label
        assert there.any(0)[[0, -1]].all() and there.any(1)[[0, -1]].all()
        if isinstance(shape, dict):
            seen = decoded(shape, *mask.shape)
            assert seen.sum() == annotation["area"] and (mask[seen] == label).all()
        else:
            assert len(shape[0]) >= 6 and annotation["area"] <= there.sum()
    assert {kind for kind, _ in kinds} == {list, dict}
