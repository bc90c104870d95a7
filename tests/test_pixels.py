# SPDX-License-Identifier: Apache-2.0
"""Images and masks on their way to a segmenter: what is refused, what masks mean, and that both stay together."""

import io

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from src.data.image_files import UnusableImage
from src.data.labels import Labels
from src.data.pixel_folder import list_pairs
from src.data.pixel_transforms import TrainPixels, aligned_size, distorted, normalised, padded, scaled_size
from src.errors import UserError


def png(values, mode=None):
    image = Image.fromarray(np.asarray(values))
    if mode == "P":
        image = Image.fromarray(np.asarray(values), "P")
        image.putpalette([*range(256)] * 3)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folders(tmp_path):
    """Three images, one of them in a folder below, and their masks."""
    for name in ("a", "b", "deeper/c"):
        for kind, ending, shape in (("images", "jpg", (4, 6, 3)), ("masks", "png", (4, 6))):
            path = tmp_path / kind / f"{name}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros(shape, np.uint8)).save(path)
    return tmp_path


def listed(folders):
    return list_pairs(folders / "images", folders / "masks", Labels(5))


def test_pairs_are_found_by_their_names(folders):
    """Protects from masks of other images: same names but for the ending, litter passed over, other kinds told."""
    (folders / "images" / ".DS_Store").write_text("")
    (folders / "images" / "d.tif").write_text("")
    pairs = listed(folders)
    assert pairs.images == 3 and "1 .tif" in pairs.notes()[0]
    for position in range(3):
        stems = [
            path.relative_to(folders / kind).with_suffix("")
            for path, kind in ((pairs.path(position), "images"), (pairs.mask_path(position), "masks"))
        ]
        assert stems[0] == stems[1]


@pytest.mark.parametrize(
    ("gone", "named"),
    [
        ("masks/b.png", r"^image without mask in .*masks: b\.jpg; add it, or remove the image$"),
        ("images/a.jpg", r"^mask without image in .*images: a\.png; add it, or remove the mask$"),
        ("images", r"^cannot list data folder .*images \(No such file"),
    ],
)
def test_what_is_missing_is_named(gone, named, folders):
    """Protects from training on half of a data set: the first failure that users of others meet late, or never."""
    path = folders / gone
    path.unlink() if path.is_file() else path.rename(folders / "elsewhere")
    with pytest.raises(UserError, match=named):
        listed(folders)


def test_two_images_of_one_name_and_empty_folders(folders):
    (folders / "images" / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"has both a\.\w+ and a\.\w+; remove one"):
        listed(folders)
    (folders / "none").mkdir()
    with pytest.raises(UserError, match=r"none has no mask \(\.png\)"):
        list_pairs(folders / "masks", folders / "none", Labels(5))


@given(
    values=st.lists(st.sampled_from([0, 1, 2, 150, 151, 254, 255]), min_size=6, max_size=6),
    reduce_zero_label=st.booleans(),
    mode=st.sampled_from(["L", "P"]),
)
def test_labels_are_what_their_rule_says(values, reduce_zero_label, mode):
    """Protects the most common cause of an IoU of 0: 0 and 255, with and without `reduce_zero_label`, by the rule."""
    values = np.array(values, np.uint8).reshape(2, 3)
    labels = Labels(151 - reduce_zero_label, 255, reduce_zero_label)
    meant = [255 if v == 255 or (reduce_zero_label and v == 0) else int(v) - reduce_zero_label for v in values.flat]
    if max((v for v in meant if v != 255), default=0) >= labels.classes:
        worst = max(values[values != 255])
        with pytest.raises(UnusableImage, match=rf"^has the value {worst} but the largest class is 150 .*mend the"):
            labels.of(png(values, mode), (2, 3))
    else:
        assert labels.of(png(values, mode), (2, 3)).ravel().tolist() == meant


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (png(np.zeros((2, 3, 3), np.uint8)), "is a picture of mode RGB, not one of numbers"),
        (png(np.zeros((2, 3), np.uint16)), "is a picture of mode I;16"),
        (png(np.zeros((3, 2), np.uint8)), "has 2 x 3 pixels but its image 3 x 2"),
        (png(np.zeros((2, 3), np.uint8))[:30], "is no PNG, or truncated or damaged"),
        (b"", "is no PNG"),
    ],
)
def test_masks_that_are_none(content, named):
    with pytest.raises(UnusableImage, match=f"^{named}"):
        Labels(5).of(content, (2, 3))


def test_binary_masks_of_one_bit():
    """White is 1, not 255, which would be ignored everywhere."""
    values = np.array([[True, False, True]])
    assert Labels(2).of(png(values), (1, 3)).tolist() == [[1, 0, 1]]


sides = st.integers(1, 3000)


@given(size=st.tuples(sides, sides), scale=st.tuples(st.integers(8, 3000), st.integers(8, 3000)))
def test_scaled_size_just_fits(size, scale):
    """As published: the long side at most the long one, the short at most the short one, one of them exactly."""
    down, across = scaled_size(size, scale)
    assert max(down, across) <= max(scale) + 0.5 and min(down, across) <= min(scale) + 0.5
    assert abs(max(down, across) - max(scale)) < 1 or abs(min(down, across) - min(scale)) < 1
    aligned = aligned_size((down, across), 32)
    assert all(side % 32 == 0 and 0 <= side - there < 32 for side, there in zip(aligned, (down, across)))


def training(size=(48, 40), most=1.0, seed=(3, 1), is_distorted=False):
    return TrainPixels(size, (64, 64), (0.5, 2.0), most, 0.5, is_distorted, 255, seed)


def checked(height, width):
    """An image whose colours say the class of each pixel: squares of 16 pixels."""
    rows, columns = np.mgrid[:height, :width] // 16
    labels = ((rows + 2 * columns) % 7).astype(np.uint8)
    return np.repeat((36 * labels)[..., None], 3, axis=2), labels


@given(height=st.integers(20, 90), width=st.integers(20, 90), position=st.integers(0, 1000))
def test_image_and_mask_stay_together(height, width, position):
    """Protects what is learned: whatever is scaled, cut and mirrored, a pixel keeps its own class."""
    pixels, labels = checked(height, width)
    pixels, labels = training()(pixels, labels, position)
    assert pixels.shape == (*labels.shape, 3) and labels.shape[0] <= 48 and labels.shape[1] <= 40
    # Between squares the image is blended, and the mask is not.
    same = np.abs(pixels[..., 0].astype(int) - 36 * labels.astype(int)) < 18
    assert same.mean() > 0.75


def test_normalisation_and_padding():
    """Every value to the bit as its formula says, float32; around it nothing, and no class."""
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)[:, :, ::-1] + np.uint8([0, 7, 99])
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    image = normalised(pixels, mean, std, (18, 20))
    expected = (pixels - 255 * np.float32(mean)) / (255 * np.float32(std))
    np.testing.assert_array_equal(image[:, :16, :16], expected.transpose(2, 0, 1))
    assert image.dtype == np.float32 and not image[:, 16:].any() and not image[..., 16:].any()
    np.testing.assert_array_equal(normalised(pixels, mean, std), image[:, :16, :16])
    labels = padded(pixels[..., 0], (18, 20), 254)
    np.testing.assert_array_equal(labels[:16, :16], pixels[..., 0])
    assert labels.dtype == np.int32 and (labels[16:] == 254).all() and (labels[:, 16:] == 254).all()


def test_the_same_seed_and_position_give_the_same():
    """Protects resuming: bit for bit, whatever came before; another epoch gives something else."""
    pixels, labels = np.random.default_rng(0).integers(0, 255, (70, 90, 3), np.uint8), checked(70, 90)[1]
    one, other, again = training(is_distorted=True), training(seed=(3, 2)), training(is_distorted=True)
    first = one(pixels, labels, 5)
    one(pixels, labels, 6)
    for part, same in zip(first, again(pixels, labels, 5)):
        np.testing.assert_array_equal(part, same)
    assert not np.array_equal(first[0], other(pixels, labels, 5)[0])


def test_no_crop_is_mostly_of_one_class():
    """As published, where another crop can be had: at most 75 %, pixels without a class not counted."""
    labels = np.zeros((64, 64), np.uint8)
    labels[:20] = 1
    labels[:, 40:] = 255
    for position in range(30):
        cut = TrainPixels((24, 24), (64, 64), (1, 1), 0.75, 0, False, 255, (0, 0))(
            np.zeros((64, 64, 3), np.uint8), labels, position
        )[1]
        counts = np.bincount(cut[cut != 255], minlength=2)
        assert counts.max() < 0.75 * counts.sum()


def test_distortion_changes_colours_as_published():
    """Brightness, contrast, saturation, hue: each alone is found again in what it should change, and nothing else."""

    class Drawn:
        """Random numbers in their order."""

        def __init__(self, *numbers):
            self.numbers = iter(numbers)

        def random(self):
            return next(self.numbers)

        uniform = integers = lambda self, *_: next(self.numbers)

    pixels = np.random.default_rng(0).integers(60, 180, (8, 8, 3), np.uint8)
    no = 0.9
    assert np.array_equal(distorted(pixels, Drawn(no, no, no, no, no)), pixels)
    np.testing.assert_array_equal(distorted(pixels, Drawn(0.1, 20.0, no, no, no, no)), pixels + 20)
    brighter = np.clip(pixels * np.float32(1.5), 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(distorted(pixels, Drawn(no, 0.1, 0.1, 1.5, no, no)), brighter)
    before = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV).astype(int)
    # By OpenCV's own arithmetic on hue and saturation, to the bit.
    for drawn, channel, values in (
        ((no, no, 0.1, 1.5, no, no), 1, np.minimum(before[..., 1] * 1.5, 255)),
        ((no, no, no, 0.1, -10, no), 0, (before[..., 0] - 10) % 180),
    ):
        hues = before.astype(np.uint8)
        hues[..., channel] = values
        np.testing.assert_array_equal(distorted(pixels, Drawn(*drawn)), cv2.cvtColor(hues, cv2.COLOR_HSV2RGB))
    turned = cv2.cvtColor(distorted(pixels, Drawn(no, no, no, 0.1, 10, no)), cv2.COLOR_RGB2HSV).astype(int)
    colourful = before[..., 1] > 60
    assert (np.abs((turned - before)[colourful][:, 0] % 180 - 10) <= 2).all()
