# SPDX-License-Identifier: Apache-2.0
"""The idea itself, as Cells that know no model."""

from src.ops.acmix import ACmix
from src.ops.decomposition import convolution_by_shifts

__all__ = ["ACmix", "convolution_by_shifts"]
