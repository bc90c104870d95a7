# SPDX-License-Identifier: Apache-2.0
"""The steps from an encoded image to the network's input, for training and for evaluation."""

from pathlib import Path

import numpy as np
from mindspore.dataset import transforms, vision

from src.data.damage import readable_errors
from src.errors import UserError


def train_transform(data, image_size, in_channels):
    """Return the training steps of a `DataConfig`: random crop, random flip, normalisation.

    Each takes encoded bytes (uint8, 1-D) to float32 (in_channels, image_size, image_size).
    """
    # One fused step decodes only the blocks of a JPEG that the crop needs.
    crop = vision.RandomCropDecodeResize(image_size, tuple(data.crop_scale), tuple(data.crop_ratio))
    flip = [vision.RandomHorizontalFlip(data.hflip)] if data.hflip else []
    return [crop, *flip, *_normalise(data.mean, data.std, in_channels)]


def eval_transform(image_size, resize, mean, std, in_channels):
    """Return the evaluation steps: shorter side to `resize` pixels, centre crop, normalisation.

    Each list takes encoded bytes (uint8, 1-D) to float32 (in_channels, image_size, image_size).
    """
    return [
        vision.Decode(),
        vision.Resize(resize),
        vision.CenterCrop(image_size),
        *_normalise(mean, std, in_channels),
    ]


def preprocessing(data, image_size, in_channels):
    """Return the evaluation preprocessing as plain values: the arguments of `eval_transform`, fit for JSON."""
    return {
        "image_size": image_size,
        "resize": data.resize or round(image_size * 256 / 224),
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
    try:
        image = np.frombuffer(Path(path).read_bytes(), np.uint8)
    except OSError as error:
        raise UserError(f"cannot read image {path}: {error.strerror}") from error
    with readable_errors(path):
        for step in eval_transform(**spec):
            image = step(image)
    return image


def _normalise(mean, std, in_channels):
    """Return the steps from decoded pixels (0..255, three channels whatever the file holds) to the network's input."""
    mean, std = 255 * np.array(mean), 255 * np.array(std)
    if in_channels == 3:
        return [vision.Normalize(mean.tolist(), std.tolist()), vision.HWC2CHW()]
    # Grey as three equal channels, of which the first is kept: no step in C++ adds an axis to (H, W).
    return [
        vision.ConvertColor(vision.ConvertMode.COLOR_RGB2GRAY),
        vision.ConvertColor(vision.ConvertMode.COLOR_GRAY2RGB),
        vision.Normalize(mean.repeat(3).tolist(), std.repeat(3).tolist()),
        vision.HWC2CHW(),
        transforms.Slice(slice(0, 1)),
    ]
