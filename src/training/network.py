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
        raise UserError(f"model {config.head} on {config.name} is a segmenter, and this takes classifiers")
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
