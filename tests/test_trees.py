# SPDX-License-Identifier: Apache-2.0
"""deepforest's wheel as a data set: tiles hold each pixel and each tree of its pictures; a wrong file is refused.

The wheel here is made up: a zip with pictures of noise and boxes under the names of the real ones.
"""

import io
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from shell import ROOT

from src.data.trees import PICTURES, boxes_of, tiles, write_trees
from src.errors import UserError

TREE = "<object><name>Tree</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
BOXES = [(10, 20, 50, 60), (340, 100, 380, 140), (460, 200, 490, 230)]


def wheel(path, left_out=()):
    """Write a wheel with pictures of 450 x 500, three trees each: one lies on the line where they are cut."""
    pixels = np.random.default_rng(0).integers(0, 256, (450, 500, 3), np.uint8)
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "png")
    with zipfile.ZipFile(path, "w") as archive:
        for name in sum(PICTURES.values(), ()):
            trees = "".join(TREE.format(*box) for box in BOXES)
            files = {
                f"deepforest/data/{name}.png": png.getvalue(),
                f"deepforest/data/{name}.xml": f"<annotation>{trees}</annotation>",
            }
            for file, content in files.items():
                if file not in left_out:
                    archive.writestr(file, content)
    return pixels


def prepare(file, folder):
    words = [sys.executable, ROOT / "scripts" / "prepare_trees.py", "--wheel", file, "--output_dir", folder]
    return subprocess.run(words, capture_output=True, text=True)


@settings(deadline=None, max_examples=50)
@given(
    height=st.integers(1, 900),
    width=st.integers(1, 900),
    corners=st.lists(st.tuples(*[st.floats(0, 1)] * 4), max_size=20),
)
def test_tiles_hold_every_pixel_and_every_part_of_every_tree(height, width, corners):
    """Nothing of a picture is lost or there twice: pixels join to it again, and the parts of a box to its area."""
    pixels = np.arange(height * width, dtype=np.int64).reshape(height, width, 1)
    corners = np.array(corners).reshape(-1, 2, 2) * (width, height)
    boxes = np.concatenate([corners.min(1), corners.max(1)], 1)
    rows, areas = {}, 0.0
    for row, _, corner, part in tiles(pixels):
        assert max(part.shape) <= 256
        rows.setdefault(row, []).append(part)
        areas += sum(w * h for (_, _, w, h), _ in boxes_of(boxes - np.tile(corner, 2), part.shape))
    assert np.array_equal(np.concatenate([np.concatenate(row, 1) for row in rows.values()]), pixels)
    np.testing.assert_allclose(areas, np.prod(boxes[:, 2:] - boxes[:, :2], 1).sum(), rtol=1e-9, atol=1e-6)


def test_what_is_written(tmp_path):
    """COCO's form: tiles under their names, trees in their tile's pixels, of a cut tree the lesser part is a crowd."""
    pixels = wheel(tmp_path / "deepforest.whl")
    done = prepare(tmp_path / "deepforest.whl", tmp_path / "trees")
    assert done.returncode == 0, done.stderr
    assert "training: 12 tiles, 9 trees, 3 cut ones to be ignored" in done.stdout
    content = json.loads((tmp_path / "trees" / "validation.json").read_text())
    assert content["categories"] == [{"id": 1, "name": "tree"}]
    by_id = {image["id"]: image for image in content["images"]}
    assert [(image["height"], image["width"]) for image in by_id.values()] == [(225, 250)] * 4
    found = {
        (by_id[tree["image_id"]]["file_name"].split("crop_")[1], tuple(tree["bbox"]), tree["iscrowd"])
        for tree in content["annotations"]
    }
    assert found == {
        ("0_0.png", (10, 20, 40, 40), 0),
        ("0_1.png", (90, 100, 40, 40), 0),
        ("0_1.png", (210, 200, 30, 25), 0),
        ("1_1.png", (210, 0, 30, 5), 1),
    }
    tile = np.asarray(Image.open(tmp_path / "trees" / "validation" / by_id[4]["file_name"]))
    assert np.array_equal(tile, pixels[225:, 250:])


@pytest.mark.parametrize("fault", ["missing", "no wheel", "another wheel", "there already"])
def test_what_is_refused(tmp_path, fault):
    """Each wrong file ends in a line that says how to get the right one, and leaves nothing behind."""
    file, folder = tmp_path / "deepforest.whl", tmp_path / "new" / "trees"
    named = "deepforest==2.1.0"
    if fault == "no wheel":
        file.write_bytes(b"no zip")
    elif fault == "another wheel":
        wheel(file, left_out=("deepforest/data/SOAP_061.xml",))
    elif fault == "there already":
        wheel(file)
        folder.mkdir(parents=True)
        (folder / "kept.txt").write_text("mine")
        named = "there already"
    with pytest.raises(UserError, match=named):
        write_trees(file, folder)
    assert [path.name for path in folder.parent.glob("**/*") if path != folder] == ["kept.txt"][: folder.exists()]
