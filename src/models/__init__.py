# SPDX-License-Identifier: Apache-2.0
"""Backbones made of `src.ops`. Importing the package registers them all."""

import src.models.resnet  # noqa: F401
from src.models.registry import create_model, list_models

__all__ = ["create_model", "list_models"]
