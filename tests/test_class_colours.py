# SPDX-License-Identifier: Apache-2.0
"""Names and colours of classes from a file, and the palette where it has none."""

import numpy as np
import pytest

from src.data.class_colours import from_text, palette, read_classes, to_text
from src.errors import UserError


def test_a_file_of_names_and_colours(tmp_path):
    """A tab divides a name from its colour, which may be missing; names may hold anything else."""
    path = tmp_path / "classes.txt"
    path.write_text("sky, clear\t#4682b4\nwall #2\nsnow\t #FFFFFF\n", encoding="utf-8")
    assert read_classes(path, 3) == (["sky, clear", "wall #2", "snow"], ["#4682b4", None, "#FFFFFF"])
    assert from_text("#4682b4") == [70, 130, 180] and to_text(np.uint8([70, 130, 180])) == "#4682b4"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a\tred\nb\n", r"classes\.txt, line 1: 'red' is no colour; it takes a line as sky<tab>#4682b4"),
        ("a\nb\t\n", "line 2: '' is no colour"),
        ("a\n", "has 1 lines but takes a name for each of the 2 classes"),
        ("a\n\n", "a name for each"),
        (None, "cannot read .*classes.txt"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, text, named):
    """One line names the file, and the line in it."""
    if text is not None:
        (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(UserError, match=named):
        read_classes(tmp_path / "classes.txt", 2)


def test_the_palette_is_pascal_voc_s():
    """Its first colours, its last, and that of 255; no two numbers look alike."""
    colours = palette(256)
    voc = [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128], [0, 128, 128]]
    np.testing.assert_array_equal(colours[:7], voc)
    np.testing.assert_array_equal(colours[[8, 20, 255]], [[64, 0, 0], [0, 64, 128], [224, 224, 192]])
    assert len(np.unique(colours, axis=0)) == 256
