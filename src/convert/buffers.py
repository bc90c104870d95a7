# SPDX-License-Identifier: Apache-2.0
"""What published files hold beside the parameters: constants and counters that ours do without."""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from src.errors import UserError
from src.image_size import sides
from src.models import swin
from src.models.published import published_names
from src.ops.window_attention import relative_positions, roll_mask

_TABLE = "relative_position_bias_table"


class Buffers(NamedTuple):
    """The buffers of a family.

    Attributes:
        endings: the last part of their names.
        make: `make(network, image_size, tensors)` returns them all, name -> array, as the published code makes them;
            `tensors` are the published parameters by name.
    """

    endings: tuple
    make: Callable

    def includes(self, name):
        """Whether a published tensor is one of them."""
        return name.rpartition(".")[2] in self.endings


def _none(network, image_size, tensors):
    return {}


def _batch_counts(network, image_size, tensors):
    """How many batches each norm has seen, which nothing reads: 0."""
    norms = (name.removesuffix("running_mean") for name in tensors if name.endswith(".running_mean"))
    return {f"{norm}num_batches_tracked": np.array(0) for norm in norms}


def _window_constants(network, image_size, tensors):
    """Which row of the bias table each pair of pixels has, and which pairs of a rolled map do not see each other."""
    buffers = {}
    for name, cell in network.cells_and_names():
        match = re.fullmatch(r"(layer(\d)\..*)attn", name)
        if not match:
            continue
        stride = network.embed.patch << (int(match[2]) - 1)
        if any(side % (stride * cell.window) for side in sides(image_size)):
            # At this size the last map is one of the first stage's windows, the largest, and the others are several.
            whole = (network.embed.patch << 3) * network.layer1.blocks[0].attn.window
            raise UserError(
                f"at image_size {image_size} some maps are no whole windows, which the published Swin needs; give "
                f"--image_size {whole}"
            )
        (block,) = published_names(match[1], swin.PUBLISHED)
        buffers[f"{block}attn.relative_position_index"] = relative_positions(cell.window).astype(np.int64)
        if cell.cyclic_shift:
            height, width = (side // stride for side in sides(image_size))
            buffers[f"{block}attn_mask"] = roll_mask(height, width, cell.window, cell.cyclic_shift)[:, 0]
    return buffers


def _constants_of_openmmlab(network, image_size, tensors):
    """Counts of batches, and which row of the bias table each pair of pixels has."""
    buffers = _batch_counts(network, image_size, tensors)
    for name, tensor in tensors.items():
        if name.endswith(_TABLE):
            window = (math.isqrt(len(tensor)) + 1) // 2
            index = relative_positions(window).astype(np.int64)
            buffers[name.removesuffix(_TABLE) + "relative_position_index"] = index
    return buffers


NO_BUFFERS = Buffers((), _none)
BATCH_COUNTS = Buffers(("num_batches_tracked",), _batch_counts)
OPENMMLAB_CONSTANTS = Buffers(("num_batches_tracked", "relative_position_index", "attn_mask"), _constants_of_openmmlab)
WINDOW_CONSTANTS = Buffers(("relative_position_index", "attn_mask"), _window_constants)
