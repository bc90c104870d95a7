# SPDX-License-Identifier: Apache-2.0
"""Backbones made of `src.ops`. Importing the package registers them all."""

import src.models.pvt
import src.models.resnet
import src.models.san
import src.models.swin  # noqa: F401
from src.models.registry import create_model, list_models

__all__ = ["create_model", "list_models"]
