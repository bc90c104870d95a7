# SPDX-License-Identifier: Apache-2.0
"""Image files for the programs that clients copy: what each has to become, by Pillow, and those to be refused."""

import numpy as np
from PIL import Image, ImageOps

SPEC = {
    "image_size": [16, 24],
    "resize": 20,
    "interpolation": "bilinear",
    "orientation": "ignore",
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.3, 0.4],
    "in_channels": 3,
}
GREY = {"in_channels": 1, "mean": [0.4], "std": [0.3]}
CUBIC = {"interpolation": "bicubic"}
# Name and size, (width, height), of a file, and what differs from SPEC.
CASES = [
    ("much_smaller.png", (900, 600), {}),
    ("much_smaller_cubic.png", (600, 900), CUBIC),
    ("tall.png", (60, 300), {}),
    # Pillow 13 scales the height first here, earlier ones do not.
    ("tall_cubic.png", (60, 300), {**CUBIC, "resize": 25}),
    ("wide_cubic.png", (300, 60), {**CUBIC, "image_size": [24, 16]}),
    ("enlarged.png", (9, 7), {}),
    ("enlarged_cubic.png", (7, 9), {**CUBIC, "image_size": [24, 16]}),
    ("strip.png", (90, 1), {}),
    # Smaller than the input: black around it, of an odd number of rows.
    ("framed.png", (33, 20), {"resize": 11}),
    ("framed_cubic.png", (9, 14), {**CUBIC, "resize": 13, "image_size": [24, 16]}),
    ("unscaled.png", (28, 28), {**GREY, "resize": 28, "image_size": [32, 32]}),
    ("grey.bmp", (50, 70), GREY),
    ("transparent.webp", (50, 70), {"image_size": [16, 16]}),
    ("lying.jpg", (70, 50), {}),
    ("lying_turned.jpg", (70, 50), {"orientation": "apply"}),
    # The card of an earlier export.
    ("earlier.png", (50, 70), {"image_size": 16, "orientation": None}),
]
# Name -> what is said of it.
REFUSED = {
    "deep.png": "has 16 bits a channel, of which 8 would be lost; convert it to 8 bits by the range of its values",
    "tiff.jpg": "is not a JPEG, PNG, BMP or WebP image; convert it",
    "text.png": "is not a JPEG, PNG, BMP or WebP image; convert it",
    "cut.png": "is damaged",
}


def write_case(folder, name, size, change):
    """Write the file of one of `CASES`; return its path and the preprocessing."""
    path = folder / name
    rng = np.random.default_rng(len(name))
    small = Image.fromarray(rng.integers(0, 256, (6, 5, 4), np.uint8), "RGBA")
    pixels = np.asarray(small.resize(size, Image.NEAREST)) + rng.integers(-20, 20, (*size[::-1], 4))
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8), "RGBA")
    turned = Image.Exif()
    turned[0x0112] = 6
    if path.suffix == ".jpg":
        image.convert("RGB").save(path, exif=turned)
    else:
        image.save(path, **({"lossless": True, "exact": True} if path.suffix == ".webp" else {}))
    spec = {**SPEC, **change}
    return path, {key: value for key, value in spec.items() if value is not None}


def write_refused(folder):
    """Write the files of `REFUSED`."""
    Image.fromarray(np.full((9, 9), 50, np.uint16)).save(folder / "deep.png")
    Image.new("RGB", (9, 9)).save(folder / "tiff.jpg", "TIFF")
    (folder / "text.png").write_text("no image")
    Image.new("RGB", (9, 9)).save(folder / "whole.png")
    (folder / "cut.png").write_bytes((folder / "whole.png").read_bytes()[:20])


def pixels_of(path, spec):
    """Return uint8 (H, W, C), as evaluation prepares an image file before it is normalised."""
    image = Image.open(path)
    image = ImageOps.exif_transpose(image) if spec.get("orientation") == "apply" else image
    image = image.convert("RGB")
    size = spec["image_size"] if isinstance(spec["image_size"], list) else 2 * [spec["image_size"]]
    down, across = (round(side * spec["resize"] / min(size)) for side in size)
    if image.width * down >= image.height * across:
        across = image.width * down // image.height
    else:
        down = image.height * across // image.width
    kind = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC}[spec["interpolation"]]
    top, left = (down - size[0]) // 2, (across - size[1]) // 2
    image = image.resize((across, down), kind).crop((left, top, left + size[1], top + size[0]))
    return np.asarray(image.convert("L") if spec["in_channels"] == 1 else image).reshape(*size, -1)


def prepared(path, spec):
    """Return float32 (C, H, W), as evaluation prepares an image file."""
    mean, std = (255 * np.array(spec[key]) for key in ("mean", "std"))
    return ((pixels_of(path, spec) - mean) / std).transpose(2, 0, 1).astype(np.float32)


def assert_alike(pixels, path, spec):
    """Fail unless uint8 (H, W, C) are Pillow's, to a grey level."""
    expected = pixels_of(path, spec)
    assert (pixels.shape, pixels.dtype) == (expected.shape, np.uint8)
    assert np.abs(pixels.astype(int) - expected).max() <= 1
