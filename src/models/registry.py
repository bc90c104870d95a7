# SPDX-License-Identifier: Apache-2.0
"""Models by name: `register_model` adds a builder, `create_model` calls it, `list_models` lists what there is."""

import difflib
import fnmatch
import inspect

_BUILDERS = {}


def register_model(name, builder):
    """Add `builder(num_classes, image_size, in_channels, drop_path_rate, <its own options>)` as model `name`."""
    _BUILDERS[name] = builder


def list_models(pattern="*"):
    """Return the sorted names of the models that match a shell pattern, as `acmix_*`."""
    return sorted(fnmatch.filter(_BUILDERS, pattern))


def create_model(name, num_classes=1000, image_size=224, in_channels=3, drop_path_rate=0.0, **options):
    """Build a model, its weights initialised for training.

    Args:
        name (str): one of `list_models()`.
        num_classes (int): length of the logits.
        image_size (int): side of the square input in pixels.
        in_channels (int): channels of the input, 3 for RGB.
        drop_path_rate (float): stochastic depth of the last block; it grows linearly from 0 at the first.
        options: the family's own, e.g. `stem`, `width`, `shift` of the ResNets.

    Returns:
        nn.Cell: images (B, in_channels, image_size, image_size) -> logits (B, num_classes).

    Raises:
        ValueError: an unknown name or option, or a value that cannot work.
    """
    if name not in _BUILDERS:
        near = difflib.get_close_matches(name, _BUILDERS, n=3, cutoff=0.3)
        raise ValueError(f"no model {name!r}; nearest: {', '.join(near or list_models())}")
    builder = _BUILDERS[name]
    common = {"num_classes": num_classes, "image_size": image_size, "in_channels": in_channels}
    for key, value in common.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{key} must be a whole number from 1, got {value!r}")
    if not 0 <= drop_path_rate < 1:
        raise ValueError(f"drop_path_rate must be in [0, 1), got {drop_path_rate!r}")
    known = [key for key in inspect.signature(builder).parameters if key not in (*common, "drop_path_rate")]
    for key in options:
        if key not in known:
            raise ValueError(f"{name} has no option {key!r}; it takes {', '.join(known)}")
    return builder(**common, drop_path_rate=drop_path_rate, **options)
