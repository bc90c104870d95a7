# SPDX-License-Identifier: Apache-2.0
"""Convolution, attention and ACmix as two stages, and what each stage costs (paper, section 3, table of complexity).

Stage I are 1x1 convolutions; stage II is all that follows: shift and sum, attention, or both and what feeds them.
"""

from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import Parameter, nn, ops

from src.errors import UserError
from src.measure.operators import profile
from src.models.complexity import count_multiply_adds
from src.ops import ACmix, convolution_by_shifts
from src.ops.acmix import Mix
from src.ops.shift import ShiftSum

# In and out: channels C and C', pixels HW and H'W'; kernels k of the convolution and a of the attention; g groups.
FORMULAS = {
    "convolution": ("k² C C' HW / g", "k² C' H'W'"),
    "attention": ("3 C C' HW", "2 a² C' H'W'"),
    "ACmix": ("3 C C' HW", "(2 a² + k⁴) C' H'W' + 3 k² C' HW"),
}
BATCH_SIZE, RUNS = 8, 10


@dataclass(frozen=True)
class Place:
    """A convolution somewhere in a network, and what attention or ACmix would be there.

    Attributes:
        in_channels, out_channels, kernel, stride, dilation, groups (int): of the convolution; `groups` of it alone.
        size (tuple): (H, W) of its input.
        kernel_att, heads (int): of the attention.
    """

    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    dilation: int
    groups: int
    size: tuple
    kernel_att: int
    heads: int


class Stages(nn.Cell):
    """`stage_two` after `stage_one`, (B, C, H, W) -> (B, C', H', W')."""

    def __init__(self, stage_one, stage_two):
        super().__init__()
        self.stage_one, self.stage_two = stage_one, stage_two

    def construct(self, x):
        return self.stage_two(self.stage_one(x))


class CountedShiftSum(ShiftSum):
    """Shift by slices, whose k*k additions for each output count too, as in the paper's table."""

    def multiply_adds(self, input_shape, output_shape):
        outputs = output_shape[0] * output_shape[1] * output_shape[2] * output_shape[3]
        return self.kernel**2 * outputs


class Both(nn.Cell):
    """A convolution of (B, C, H, W), and the same by 1x1 convolutions, shifts and a sum."""

    def __init__(self, place):
        super().__init__()
        self.pad = place.dilation * (place.kernel // 2)
        self.stride, self.dilation, self.groups = place.stride, place.dilation, place.groups

    def construct(self, x, weight):
        whole = ops.conv2d(x, weight, None, self.stride, "pad", self.pad, self.dilation, self.groups)
        return whole, convolution_by_shifts(x, weight, self.stride, self.dilation, self.groups)


def largest_difference(place):
    """Return the largest difference between the two forms on normal random numbers, and the largest output."""
    rng = np.random.default_rng(0)
    inputs = place.in_channels // place.groups
    weight = rng.standard_normal((place.out_channels, inputs, place.kernel, place.kernel))
    weight *= (inputs * place.kernel**2) ** -0.5  # outputs of about one, whatever the channels
    x = rng.standard_normal((BATCH_SIZE, place.in_channels, *place.size))
    whole, shifted = (
        out.asnumpy() for out in Both(place)(ms.Tensor(x.astype(np.float32)), ms.Tensor(weight.astype(np.float32)))
    )
    return float(np.abs(whole - shifted).max()), float(np.abs(whole).max())


def operations(place):
    """Return what `FORMULAS` give for one image: {module: (stage I, stage II)}."""
    c, c_out, k, a = place.in_channels, place.out_channels, place.kernel, place.kernel_att
    pixels = place.size[0] * place.size[1]
    pixels_out = -(-place.size[0] // place.stride) * -(-place.size[1] // place.stride)
    projections = 3 * c * c_out * pixels
    return {
        "convolution": (k**2 * c * c_out * pixels // place.groups, k**2 * c_out * pixels_out),
        "attention": (projections, 2 * a**2 * c_out * pixels_out),
        "ACmix": (projections, (2 * a**2 + k**4) * c_out * pixels_out + 3 * k**2 * c_out * pixels),
    }


def modules(place):
    """Return the three as `Stages`: {module: Cell}."""

    def acmix():
        numbers = {"kernel_att": place.kernel_att, "heads": place.heads, "kernel_conv": place.kernel}
        return ACmix(place.in_channels, place.out_channels, place.stride, place.dilation, **numbers)

    taps = place.out_channels * place.kernel**2
    one_by_one = nn.Conv2d(place.in_channels, taps, 1, group=place.groups)
    geometry = place.kernel, place.stride, place.dilation
    shift_sum = CountedShiftSum(place.out_channels, place.out_channels, *geometry, shift="slice")
    attention, both = acmix(), acmix()
    return {
        "convolution": Stages(one_by_one, shift_sum),
        "attention": Stages(attention.qkv, attention.attention),
        "ACmix": Stages(both.qkv, Mix(nn.Identity(), both.attention, both.convolution)),
    }


def counted(stages, place):
    """Return the operations of the two stages for one image, counted while it runs."""
    x = (1, place.in_channels, *place.size)
    maps = stages.stage_one(ops.zeros(x, ms.float32)).shape
    return count_multiply_adds(stages.stage_one, x), count_multiply_adds(stages.stage_two, maps)


def timed(stages, place):
    """Return the ms an image of the two stages: of their operators on CPU, medians, one operator after the other."""
    pixels = np.random.default_rng(0).standard_normal((BATCH_SIZE, place.in_channels, *place.size))
    x = Parameter(pixels.astype(np.float32), requires_grad=False)
    for _ in range(RUNS):
        stages(x).asnumpy()
    of_stage = [0.0, 0.0]
    for operator in profile(lambda: stages(x).asnumpy(), RUNS):
        of_stage["/stage_one-" not in operator.scope] += operator.calls * operator.ms / RUNS / BATCH_SIZE
    return tuple(of_stage)


def decompose(place):
    """Return the difference and a row for each stage of each module, as JSON values.

    Raises:
        UserError: sizes that cannot work.
    """
    if place.in_channels % place.groups or place.out_channels % place.groups:
        raise UserError(
            f"--groups {place.groups} does not divide {place.in_channels} -> {place.out_channels} channels; choose "
            "a divisor of both"
        )
    try:
        cells = modules(place)
        difference, largest = largest_difference(place)
    except ValueError as error:
        raise UserError(str(error).strip().splitlines()[0]) from error
    rows = []
    for module, expected in operations(place).items():
        for stage, formula, by_formula, count, ms_per_image in zip(
            ("I", "II"), FORMULAS[module], expected, counted(cells[module], place), timed(cells[module], place)
        ):
            rows.append(
                {
                    "module": module,
                    "stage": stage,
                    "formula": formula,
                    "by_formula": by_formula,
                    "counted": count,
                    "ms_per_image": ms_per_image,
                }
            )
    return {"largest_difference": difference, "largest_output": largest, "rows": rows}


def share(rows, row, figure):
    """Return the part of a row's `figure` in that of its whole module."""
    return row[figure] / sum(other[figure] for other in rows if other["module"] == row["module"])


def table(rows):
    """Return (head, rows) of text."""
    head = ("module", "stage", "formula", "by it, M", "counted, M", "share", "ms/img", "share of time")
    return head, [
        (
            row["module"],
            row["stage"],
            row["formula"],
            f"{row['by_formula'] / 1e6:.2f}",
            f"{row['counted'] / 1e6:.2f}",
            f"{share(rows, row, 'counted'):.1%}",
            f"{row['ms_per_image']:.3f}",
            f"{share(rows, row, 'ms_per_image'):.1%}",
        )
        for row in rows
    ]
