# SPDX-License-Identifier: Apache-2.0
"""The steps from an encoded image to the network's input, for training and for evaluation."""

from pathlib import Path

import numpy as np
from mindspore.dataset import transforms, vision

from src.data.damage import readable_errors
from src.errors import UserError

INTERPOLATION = {"bilinear": vision.Inter.BILINEAR, "bicubic": vision.Inter.BICUBIC}
# A magnitude of 10 is the strongest change, as timm counts: "m9" of published recipes is nine tenths of it.
MAGNITUDES = 11


def train_transform(data, image_size, in_channels, decoded=False):
    """Return the training steps of a `DataConfig`: random crop, random flip, RandAugment, normalisation.

    Together they take encoded bytes (uint8, 1-D), or pixels (uint8 (H, W, 3)) where `decoded`, to float32
    (in_channels, image_size, image_size). RandAugment (Cubuk et al., arXiv 1909.13719) makes two changes of shape or
    colour, each drawn for the image.
    """
    steps = _training_crop(data, image_size, decoded)
    if data.hflip:
        steps.append(vision.RandomHorizontalFlip(data.hflip))
    if data.randaugment:
        steps.append(vision.RandAugment(2, data.randaugment, MAGNITUDES, vision.Inter.BILINEAR))
    return steps + _normalise(data.mean, data.std, in_channels)


def _training_crop(data, image_size, decoded):
    if data.crop_padding:
        decode = [] if decoded else [vision.Decode()]
        return [*decode, vision.RandomCrop(image_size, data.crop_padding, pad_if_needed=True)]
    # One fused step decodes only the blocks of a JPEG that the crop needs.
    crop = vision.RandomResizedCrop if decoded else vision.RandomCropDecodeResize
    return [crop(image_size, tuple(data.crop_scale), tuple(data.crop_ratio), INTERPOLATION[data.interpolation])]


def erasing_transform(data):
    """Return the step that puts noise into a rectangle of a normalised image (Zhong et al., arXiv 1708.04896), if any.

    MindSpore has it in Python only, drawing from Python's own generator: it follows the seed on one thread only.
    """
    return [vision.RandomErasing(data.random_erasing, value="random")] if data.random_erasing else []


def eval_transform(image_size, resize, interpolation, mean, std, in_channels, decoded=False, as_pixels=False):
    """Return the evaluation steps: shorter side to `resize` pixels, centre crop, normalisation.

    Together they take what `train_transform` takes to what it gives; or, where `as_pixels`, leave normalisation to the
    network and give uint8 (image_size, image_size, in_channels).
    """
    return [
        *([] if decoded else [vision.Decode()]),
        vision.Resize(resize, INTERPOLATION[interpolation]),
        vision.CenterCrop(image_size),
        *(_channels(image_size, in_channels) if as_pixels else _normalise(mean, std, in_channels)),
    ]


def preprocessing(data, image_size, in_channels):
    """Return the evaluation preprocessing as plain values: the arguments of `eval_transform`, fit for JSON."""
    return {
        "image_size": image_size,
        "resize": data.resize or round(image_size * 256 / 224),
        "interpolation": data.interpolation,
        "mean": list(data.mean),
        "std": list(data.std),
        "in_channels": in_channels,
    }


def load_image(path, spec):
    """Read one image file and prepare it as evaluation does.

    Args:
        path: image file.
        spec: what `preprocessing` returned when the model was trained.

    Returns:
        numpy float32 (in_channels, image_size, image_size).

    Raises:
        UserError: the file is missing, or is no whole image.
    """
    return decode(path, _read(path), eval_transform(**spec))


def read_image(path):
    """Return the bytes of an image file that decodes; `UserError` as `load_image`."""
    content = _read(path)
    decode(path, content)
    return content


def decode(name, content, steps=None):
    """Apply `steps`, or only decoding, to an encoded image; `UserError` that says `name` where it is damaged."""
    image = np.frombuffer(content, np.uint8)
    with readable_errors(name, content):
        for step in steps or [vision.Decode()]:
            image = step(image)
    return image


def _read(path):
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read image {path}: {error.strerror}") from error


def _channels(image_size, in_channels):
    """Return the steps from square images of three channels to as many."""
    if in_channels == 3:
        return []
    grey = [
        vision.ConvertColor(vision.ConvertMode.COLOR_RGB2GRAY),
        vision.ConvertColor(vision.ConvertMode.COLOR_GRAY2RGB),
    ]
    return [*grey, transforms.Slice(slice(image_size), slice(image_size), slice(1))]


def _normalise(mean, std, in_channels):
    """Return the steps from decoded pixels (0..255, three channels whatever the file holds) to the network's input."""
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
