# SPDX-License-Identifier: Apache-2.0
"""ACmix with its two paths folded: one projection, attention, one grouped convolution, and their sum.

    projection   query, key and value by one convolution, slot by slot, the query already scaled
    convolution  `fc` and the shift multiplied into one kernel, with beta and what follows the operator in it
    attention    constants for positions and masks; alpha in its output projection, or in a scale of each channel

With many heads `fc` stays beside the shift, see `MOST_PIECES`, both grouped by slots, and nothing has to be reordered
between them. Where the two are one, the bias of `fc` becomes the kernel of one more piece: it passes through the zero
padding of the shift, so at a border less of it arrives. The projection fills that piece with ones, and the grouped
convolution pads it with zeros.
"""

import numpy as np
from mindspore import nn

from src.deploy.folding.attention import (
    FoldedGlobalAttention,
    FoldedSlidingWindow,
    FoldedWindowAttention,
    PieceByPiece,
    SlotBySlot,
)
from src.deploy.folding.norms import NOTHING, Affine, array, convolution, folded, of_norm
from src.ops.acmix import Mix
from src.ops.patchwise_attention import PatchwiseAttention
from src.ops.shift import one_hot_shifts
from src.ops.sliding_window import SlidingWindowAttention
from src.ops.spatial_reduction_attention import SpatialReductionAttention
from src.ops.window_attention import WindowAttention

# Slots that may share a group: one layer of ACmix-ResNet-50 takes 1.4 ms so, 2.7 ms with a group for each slot (one
# thread, 64 channels, 56 x 56), though most of its products are with zeros. More than 4 would cost more than they save.
MOST_JOINED = 4

# With more pieces `fc` stays a convolution of its own: its product with the shift would have more multiply-adds than
# the two, and onnxruntime copies all pieces k*k times for it. Folded, those of ACmix-Swin-T take 1.5 times as long.
MOST_PIECES = 12

# Channels that onnxruntime's fast convolutions take at once on CPUs with AVX-512; with AVX2 it is half of them.
BLOCK = 16


class Sum(nn.Cell):
    """In place of a `WeightedSum` whose numbers are in its terms."""

    def construct(self, alpha, a, beta, b):
        return a + b


@folded.register
def _(cell: Mix, after=NOTHING):
    attended, convolved = _parted(cell, after)
    if not cell.has_convolution and isinstance(cell.attention, PatchwiseAttention):
        cell.attention = folded(cell.attention, after)
        return cell
    if cell.has_convolution:
        pieces, slots = cell.convolution.pieces, cell.convolution.slots
    else:
        pieces, slots = 3 * cell.attention.heads, cell.attention.head_channels
    rows = Affine(np.ones((pieces, slots)), np.zeros((pieces, slots)))
    if cell.has_attention:
        if isinstance(cell.attention, PatchwiseAttention):
            cell.attention = nn.SequentialCell(PieceByPiece(pieces, slots), folded(cell.attention, attended))
        else:
            heads = cell.attention.heads
            rows.scale[:heads] = slots**-0.5
            if not cell.has_convolution:
                # Nobody else needs the value; weights of sum one let a shift through.
                for part, what in zip(rows, after):
                    part[2 * heads :] = np.broadcast_to(what, heads * slots).reshape(heads, slots)
                attended = NOTHING
            cell.attention = folded(cell.attention, attended)
    has_ones = cell.has_convolution and cell.convolution.fc.has_bias and pieces <= MOST_PIECES
    if cell.has_convolution:
        cell.convolution = folded_path(cell.convolution, rows.scale[:, 0], convolved)
    cell.qkv = slot_by_slot(cell.qkv, rows, has_ones)
    return cell


@folded.register
def _(cell: SpatialReductionAttention, after=NOTHING):
    attended, convolved = _parted(cell, after)
    scale = 1.0
    if cell.has_attention:
        scale = cell.attention.head_channels**-0.5
        cell.qkv.query = folded(cell.qkv.query, Affine(scale, 0.0))
        cell.attention = FoldedGlobalAttention(cell.attention, folded(cell.attention.projection, attended))
    if cell.has_convolution:
        path = cell.convolution.path
        pieces = np.where(np.arange(path.pieces) < path.pieces // 3, scale, 1.0)
        cell.convolution.can_be_fused = False
        cell.convolution.path = nn.SequentialCell(SlotBySlot(path.slots), folded_path(path, pieces, convolved))
    return cell


@folded.register
def _(cell: SlidingWindowAttention, after=NOTHING):
    return _followed(FoldedSlidingWindow(cell), after, cell.channels)


@folded.register
def _(cell: WindowAttention, after=NOTHING):
    return FoldedWindowAttention(cell, folded(cell.project, after))


@folded.register
def _(cell: PatchwiseAttention, after=NOTHING):
    cell.linear1, cell.norm2 = folded(cell.linear1, of_norm(cell.norm2)), nn.Identity()
    return _followed(cell, after, cell.share * cell.weights)


def _parted(cell, after):
    """Return what follows attention and what follows the convolution, and leave their plain sum in the `Mix`."""
    if not (cell.has_attention and cell.has_convolution):
        return after, after
    alpha, beta = array(cell.alpha)[0], array(cell.beta)[0]
    del cell.alpha, cell.beta
    cell.weighted_sum, cell.alpha, cell.beta = Sum(), None, None
    return Affine(alpha * after.scale, 0.0), Affine(beta * after.scale, after.shift)


def _followed(attention, after, channels):
    """Return attention and a scale and shift of each channel, as a convolution of its own, which others can fuse."""
    if after is NOTHING:
        return attention
    kernel, groups = joined(np.broadcast_to(after.scale, channels).reshape(-1, 1, 1, 1), channels, BLOCK)
    bias = after.shift if np.any(after.shift) else None
    return nn.SequentialCell(attention, convolution(kernel, bias, group=groups))


def slot_by_slot(projection, rows, has_ones):
    """Return stage I with `rows` (pieces, d each) applied to its outputs, in the order of the slots.

    With `has_ones`, each slot has one more piece, of ones.
    """
    pieces, slots = rows.scale.shape
    weight = array(projection.weight).reshape(pieces, slots, -1) * rows.scale[..., None]
    bias = array(projection.bias).reshape(pieces, slots) * rows.scale + rows.shift
    if has_ones:
        weight = np.concatenate([weight, np.zeros_like(weight[:1])])
        bias = np.concatenate([bias, np.ones_like(bias[:1])])
    weight, bias = weight.swapaxes(0, 1), bias.T
    return convolution(weight.reshape(-1, weight.shape[-1], 1, 1), bias.reshape(-1))


def folded_path(path, scale, after):
    """Return a `ConvolutionPath` as convolutions of pieces, slot by slot, that come multiplied by `scale` (pieces,)."""
    shift, taps, pieces = path.shift, path.taps, path.pieces
    if shift.by_slices:
        shifts = np.broadcast_to(one_hot_shifts(shift.kernel), (shift.channels, taps, shift.kernel, shift.kernel))
    else:
        shifts = array(shift.weight)
    shifts = shifts * np.reshape(after.scale, (-1, 1, 1, 1))
    weight = array(path.fc.weight).reshape(taps, pieces) / scale
    bias = array(path.fc.bias) if path.fc.has_bias else None
    if pieces > MOST_PIECES:
        linear = np.tile(weight, (path.slots, 1))[..., None, None]
        linear = convolution(linear, None if bias is None else np.tile(bias, path.slots), group=path.slots)
        return nn.SequentialCell(linear, _of_shift(shift, shifts, path.slots, after))
    if bias is not None:
        weight = np.concatenate([weight, bias[:, None]], axis=1)
    kernel, groups = joined(np.einsum("otyx,tp->opyx", shifts, weight), path.slots, MOST_JOINED)
    return _of_shift(shift, kernel, groups, after)


def _of_shift(shift, kernel, groups, after):
    """Return the convolution by `kernel` that steps as the shift does."""
    bias = after.shift if np.any(after.shift) else None
    return convolution(kernel, bias, shift.stride, "pad", shift.dilation * (shift.kernel // 2), shift.dilation, groups)


def joined(kernel, slots, most):
    """Return a kernel (C, P, k, k) of `slots` groups as one of fewer groups, zeros between slots, and their number.

    At most `most` slots share a group, and only if that makes it fast: onnxruntime copies each pixel k*k times to
    convolve groups whose inputs or outputs do not fill its blocks.
    """
    channels, pieces, *sides = kernel.shape
    outputs = channels // slots
    for join in range(2, most + 1):
        if slots % join == 0 and join * outputs % BLOCK == 0 and join * pieces % BLOCK == 0:
            wide = np.zeros((channels, join, pieces, *sides))
            output = np.arange(channels)
            wide[output, output // outputs % join] = kernel
            return wide.reshape(channels, join * pieces, *sides), slots // join
    return kernel, slots
