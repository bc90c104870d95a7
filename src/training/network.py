# SPDX-License-Identifier: Apache-2.0
"""The network a configuration asks for."""

from src.errors import UserError
from src.models import create_model


def build_network(config):
    """Return the network of a `ModelConfig`, freshly initialised: images (B, C, S, S) to logits (B, K).

    Raises:
        UserError: an unknown model, or values it cannot work with; or it is no classifier.
    """
    if config.head:
        raise UserError(f"model {config.title} is a segmenter, and this takes classifiers")
    if "features_only" in config.options:
        raise UserError("model.options.features_only leaves nothing to train or evaluate by; it is for create_model")
    try:
        return create_model(
            config.name,
            num_classes=config.num_classes,
            image_size=config.image_size,
            in_channels=config.in_channels,
            drop_path_rate=config.drop_path_rate,
            **config.options,
        )
    except ValueError as error:
        raise UserError(f"model {config.name}: {error}") from error


def build_on_features(create, config, **settings):
    """Return the network of a `ModelConfig` that stands on a backbone's maps, freshly initialised.

    Args:
        create: `create_segmenter` or `create_detector`.
        settings: what it takes besides, as `dropout`.

    Raises:
        UserError: an unknown head or model, or values they cannot work with.
    """
    try:
        return create(
            *(config.head, config.name, config.num_classes, config.size, config.in_channels, config.drop_path_rate),
            head_channels=config.head_channels,
            **settings,
            **config.options,
        )
    except ValueError as error:
        raise UserError(f"model {config.title}: {error}") from error
