# SPDX-License-Identifier: Apache-2.0
"""The exact GELU."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops
from scipy.special import ndtr

from src.ops.gelu import Gelu

POINTS = np.concatenate([np.linspace(-12, 12, 4001), [-1e4, -100.0, 0.0, 100.0, 1e4]])


@pytest.mark.parametrize(("dtype", "tolerance"), [(ms.float32, 5e-7), (ms.float16, 2e-3)])
def test_equals_the_definition(dtype, tolerance):
    """Exact everywhere, the far ends included, where a polynomial could run off; so is its slope."""
    ms.set_context(mode=ms.GRAPH_MODE)
    x = Tensor(POINTS.astype(np.float32)).astype(dtype)
    points = x.astype(ms.float32).asnumpy().astype(np.float64)
    density = np.exp(-(points**2) / 2) / np.sqrt(2 * np.pi)
    y = Gelu()(x).astype(ms.float32).asnumpy()
    slope = ops.grad(Gelu())(x).astype(ms.float32).asnumpy()
    scale = np.maximum(np.abs(points), 1)
    assert (np.abs(y - points * ndtr(points)) / scale).max() < tolerance
    assert np.abs(slope - ndtr(points) - points * density).max() < 2 * tolerance
