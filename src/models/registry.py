# SPDX-License-Identifier: Apache-2.0
"""Models by name: `register_model` adds one, `create_model` builds it, `list_models` lists what there is."""

import difflib
import fnmatch
import inspect
from functools import partial

from src.models.checks import check_whole

_MODELS = {}


def register_model(name, backbone, spatial, **options):
    """Add model `name`: a backbone, and the operator that looks around in its blocks.

    Args:
        backbone: `backbone(spatial, num_classes, image_size, in_channels, drop_path_rate, features_only, *, ...)`.
        spatial: `spatial(..., *, ...)`; its positional arguments are between the two.
        options: the model's own values of options.

    The keyword-only parameters of both are the options of the model.
    """
    _MODELS[name] = backbone, spatial, options


def list_models(pattern="*"):
    """Return the sorted names of the models that match a shell pattern, as `acmix_*`."""
    return sorted(fnmatch.filter(_MODELS, pattern))


def create_model(
    name, num_classes=1000, image_size=224, in_channels=3, drop_path_rate=0.0, features_only=False, **options
):
    """Build a model, its weights initialised for training.

    Args:
        name (str): one of `list_models()`.
        num_classes (int): length of the logits; the head alone needs it.
        image_size (int): side of the square input in pixels.
        in_channels (int): channels of the input, 3 for RGB.
        drop_path_rate (float): stochastic depth of the last block; it grows linearly from 0 at the first.
        features_only (bool): leave out the head and return the maps of the four stages, as a detector wants them. All
            parameters then have the name and shape they have in the classifier, which holds some more.
        options: the model's own, e.g. `stem`, `width`, `shift` of the ResNets.

    Returns:
        nn.Cell: images (B, in_channels, image_size, image_size) -> logits (B, num_classes), or with `features_only`
        four maps (B, C, H, W), whose channels and strides are in the Cell's `feature_info`: `stride` 4 stands for
        H = ceil(image_size / 4), in SAN for the floor. ResNet, SAN and Swin take images of other sides too, also
        rectangular ones; Swin keeps the windows that suit `image_size`, and PVT takes no other size.

    Raises:
        ValueError: an unknown name or option, or a value that cannot work.
    """
    if name not in _MODELS:
        near = difflib.get_close_matches(name, _MODELS, n=3, cutoff=0.3)
        raise ValueError(f"no model {name!r}; nearest: {', '.join(near or list_models())}")
    check_whole(num_classes=num_classes, image_size=image_size, in_channels=in_channels)
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
