# SPDX-License-Identifier: Apache-2.0
"""Models by name: `register_model` adds one, `create_model` builds it, `list_models` lists what there is."""

import difflib
import fnmatch
import inspect
from functools import partial

from src.image_size import sides
from src.models.checks import check_whole

_MODELS = {}


def register_model(name, backbone, spatial, **options):
    """Add model `name`: a backbone, and the operator that looks around in its blocks.

    Args:
        backbone: `backbone(spatial, num_classes, image_size, in_channels, drop_path_rate, features_only, *, ...)`, of
            which `image_size` comes as (H, W).
        spatial: `spatial(..., *, ...)`; its positional arguments are between the two.
        options: the model's own values of options.

    The keyword-only parameters of both are the options of the model.
    """
    _MODELS[name] = backbone, spatial, options


def list_models(pattern="*"):
    """Return the sorted names of the models that match a shell pattern, as `acmix_*`."""
    return sorted(fnmatch.filter(_MODELS, pattern))


def backbone_of(name):
    """Return the class of the model `name`, one of `list_models()`."""
    return _MODELS[name][0]


def create_model(
    name, num_classes=1000, image_size=224, in_channels=3, drop_path_rate=0.0, features_only=False, **options
):
    """Build a model, its weights initialised for training.

    Args:
        name (str): one of `list_models()`.
        num_classes (int): length of the logits; the head alone needs it.
        image_size (int or pair): height and width of the input in pixels: one number for a square, or (H, W).
        in_channels (int): channels of the input, 3 for RGB.
        drop_path_rate (float): stochastic depth of the last block; it grows linearly from 0 at the first.
        features_only (bool): leave out the head and return the maps of the four stages, as a detector wants them. All
            parameters then have the name and shape they have in the classifier, which holds some more; but PVT's last
            positions do without the row of the class token.
        options: the model's own, e.g. `stem`, `width`, `shift` of the ResNets.

    Returns:
        nn.Cell: images (B, in_channels, H, W) -> logits (B, num_classes), or with `features_only` four maps
        (B, C, h, w), whose channels and strides are in the Cell's `feature_info`: `stride` 4 stands for h =
        ceil(H / 4), in SAN and PVT for the floor. All take images of other sides too; Swin keeps the windows that suit
        `image_size`, and PVT interpolates its positions from `image_size` to those sides.

    Raises:
        ValueError: an unknown name or option, or a value that cannot work.
    """
    if name not in _MODELS:
        near = difflib.get_close_matches(name, _MODELS, n=3, cutoff=0.3)
        raise ValueError(f"no model {name!r}; nearest: {', '.join(near or list_models())}")
    check_whole(num_classes=num_classes, in_channels=in_channels)
    image_size = sides(image_size)
    if not 0 <= drop_path_rate < 1:
        raise ValueError(f"drop_path_rate must be in [0, 1), got {drop_path_rate!r}")
    backbone, spatial, own = _MODELS[name]
    of_spatial = _options(spatial)
    known = [*_options(backbone), *of_spatial]
    for key in options:
        if key not in known:
            raise ValueError(f"{name} has no option {key!r}; it takes {', '.join(known)}")
    options = {**own, **options}
    spatial = partial(spatial, **{key: options.pop(key) for key in of_spatial if key in options})
    return backbone(spatial, num_classes, image_size, in_channels, drop_path_rate, features_only, **options)


def _options(function):
    """The names of the keyword-only parameters."""
    parameters = inspect.signature(function).parameters.values()
    return [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
