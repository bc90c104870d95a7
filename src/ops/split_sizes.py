# SPDX-License-Identifier: Apache-2.0
"""A tensor cut into pieces of several sizes."""

import mindspore as ms
from mindspore import nn, ops
from mindspore.ops.auto_generate import SplitWithSize

_narrow = ops.MultitypeFuncGraph("narrow")


@_narrow.register("Tensor", "Number", "Number", "Number")
def _(x, axis, start, size):
    return ops.narrow(x, axis, start, size)


@ops.constexpr
def _starts(sizes):
    return tuple(sum(sizes[:i]) for i in range(len(sizes)))


class SplitSizes(nn.Cell):
    """Cut x along `axis` into a tuple of pieces, in one kernel, as `mint.split` does.

    That is a view, next to which MindSpore copies each Parameter wherever a graph reads it.

    Args:
        axis (int): of x.
        is_exported (bool): of a network, not of its training: made of slices on CPU, where networks are exported from,
            as MindSpore's ONNX exporter does not know the kernel.

    Inputs:
        x (Tensor): of any shape.
        sizes (tuple[int]): of the pieces; they add up to the length of the axis.
    """

    def __init__(self, axis, is_exported=False):
        super().__init__(auto_prefix=False)
        self.axis = axis
        self.split = SplitWithSize()
        # MindSpore 2.7 has no such kernel on CPU.
        is_missing = ms.__version__.startswith(("2.7.", "2.8."))
        self.by_slices = ms.get_context("device_target") == "CPU" and (is_exported or is_missing)

    def construct(self, x, sizes):
        if self.by_slices:
            return ops.HyperMap()(ops.partial(_narrow, x, self.axis), _starts(sizes), sizes)
        return self.split(x, sizes, self.axis)
