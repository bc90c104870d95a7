# SPDX-License-Identifier: Apache-2.0
"""The steps from an encoded image to the network's input, for training and for evaluation."""

import threading

import numpy as np
from mindspore.dataset import transforms, vision
from PIL import Image

from src.data.crops import CentreCrop, RandomCrop
from src.data.image_files import UnusableImage, decode, read_file, shown
from src.errors import UserError
from src.image_size import sides

# A magnitude of 10 is the strongest change, as timm counts: "m9" of published recipes is nine tenths of it.
MAGNITUDES = 11


class Pixels:
    """The first step of a data set: an encoded image, or the pixels of one, becomes pixels that `fit` has cropped.

    Args:
        fit: `fit(image, position)` returns a `PIL.Image.Image` of the size that comes next.
        name: `name(position)` of the image at a position, for messages.
        orientation (str): of `src.data.image_files.decode`.

    Inputs: uint8 (bytes,), (H, W, 3) or of grey (H, W), and the position, int (). Outputs: uint8 (h, w, 3).

    Attributes:
        problems (dict): what is wrong with each image that could not be used, by position.
        turned (int): images whose EXIF orientation was not applied.
    """

    def __init__(self, fit, name, orientation="ignore"):
        self.fit, self.name, self.orientation = fit, name, orientation
        self.problems, self.turned = {}, 0
        self._lock = threading.Lock()

    def __call__(self, content, position):
        try:
            if content.ndim == 1:
                image, is_turned = decode(content.tobytes(), self.orientation)
            else:
                image, is_turned = Image.fromarray(content).convert("RGB"), False
            pixels = np.asarray(self.fit(image, int(position)))
        except UnusableImage as error:
            problem = self.problems[int(position)] = f"image {shown(self.name(int(position)))} {error}"
            raise UserError(problem) from error
        if is_turned:
            with self._lock:
                self.turned += 1
        return pixels


def train_transform(data, size, in_channels, seed, name):
    """Return the training steps of a `DataConfig`: random crop, random flip, RandAugment, normalisation.

    Together they take what `Pixels` takes, which is the first of them, to float32 (in_channels, H, W). RandAugment
    (Cubuk et al., arXiv 1909.13719) makes two changes of shape or colour, each drawn for the image.

    Args:
        size (tuple): (H, W).
        seed (sequence): whole numbers that the random crops follow, beside the position of an image.
        name: of `Pixels`.
    """
    if data.crop_padding:
        steps = [Pixels(_whole, name, data.orientation)]
        steps.append(vision.RandomCrop(size, data.crop_padding, pad_if_needed=True))
    else:
        crop = RandomCrop(size, data.crop_scale, data.crop_ratio, data.interpolation, seed)
        steps = [Pixels(crop, name, data.orientation)]
    if data.hflip:
        steps.append(vision.RandomHorizontalFlip(data.hflip))
    if data.randaugment:
        steps.append(vision.RandAugment(2, data.randaugment, MAGNITUDES, vision.Inter.BILINEAR))
    return steps + _normalise(data.mean, data.std, in_channels)


def erasing_transform(data):
    """Return the step that puts noise into a rectangle of a normalised image (Zhong et al., arXiv 1708.04896), if any.

    MindSpore has it in Python only, drawing from Python's own generator: it follows the seed on one thread only.
    """
    return [vision.RandomErasing(data.random_erasing, value="random")] if data.random_erasing else []


def eval_transform(spec, name=str, as_pixels=False):
    """Return the evaluation steps: scaling, centre crop (`CentreCrop`), normalisation.

    Together they take what `train_transform` takes to what it gives; or, where `as_pixels`, leave normalisation to the
    network and give uint8 (H, W, in_channels).

    Args:
        spec (dict): what `preprocessing` returns.
        name: of `Pixels`.
    """
    size, channels = tuple(spec["image_size"]), spec["in_channels"]
    crop = CentreCrop(size, spec["resize"], spec["interpolation"])
    last = _channels(size, channels) if as_pixels else _normalise(spec["mean"], spec["std"], channels)
    return [Pixels(crop, name, spec["orientation"]), *last]


def pixels_of(data, image_size, in_channels):
    """Return what a `DataConfig` says of the pixels of a network's input, whatever it is made of, fit for JSON.

    image_size [H, W]; orientation of `decode`; mean, std by channel, of pixels in 0..1; in_channels.
    """
    return {
        "image_size": list(sides(image_size)),
        "orientation": data.orientation,
        "mean": list(data.mean),
        "std": list(data.std),
        "in_channels": in_channels,
    }


def preprocessing(data, image_size, in_channels):
    """Return the evaluation preprocessing of a `DataConfig` for a network's `image_size`, S or (H, W), fit for JSON.

    resize, interpolation of `CentreCrop`, and `pixels_of`.
    """
    return {
        "resize": data.resize or round(min(sides(image_size)) * 256 / 224),
        "interpolation": data.interpolation,
        **pixels_of(data, image_size, in_channels),
    }


def load_image(path, spec, as_pixels=False):
    """Read one image file and prepare it as evaluation does.

    Args:
        path: image file.
        spec (dict), as_pixels (bool): as of `eval_transform`.

    Returns:
        numpy float32 (in_channels, H, W), or uint8 (H, W, in_channels).

    Raises:
        UserError: the file is missing, or is no image that can be used.
    """
    pixels, *steps = eval_transform(spec, lambda _: path, as_pixels)
    image = pixels(np.frombuffer(read_file(path), np.uint8), 0)
    for step in steps:
        image = step(image)
    return image


def _whole(image, position):
    return image


def _channels(size, in_channels):
    """Return the steps from images of three channels, (H, W) of `size`, to as many."""
    if in_channels == 3:
        return []
    grey = [
        vision.ConvertColor(vision.ConvertMode.COLOR_RGB2GRAY),
        vision.ConvertColor(vision.ConvertMode.COLOR_GRAY2RGB),
    ]
    return [*grey, transforms.Slice(slice(size[0]), slice(size[1]), slice(1))]


def _normalise(mean, std, in_channels):
    """Return the steps from pixels (0..255, three channels whatever the file holds) to the network's input."""
    mean, std = 255 * np.array(mean), 255 * np.array(std)
    if in_channels == 3:
        # Bytes are cheaper to transpose than floats; the values are the same.
        return [vision.HWC2CHW(), vision.Normalize(mean.tolist(), std.tolist(), is_hwc=False)]
    # Grey as three equal channels, of which the first is kept: no step in C++ adds an axis to (H, W).
    return [
        vision.ConvertColor(vision.ConvertMode.COLOR_RGB2GRAY),
        vision.ConvertColor(vision.ConvertMode.COLOR_GRAY2RGB),
        vision.HWC2CHW(),
        transforms.Slice(slice(0, 1)),
        vision.Normalize(mean.tolist(), std.tolist(), is_hwc=False),
    ]
