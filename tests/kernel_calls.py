# SPDX-License-Identifier: Apache-2.0
"""The fused kernels called as MindSpore calls them, on NumPy arrays, and judged by the literal reference.

As a script, `python kernel_calls.py LIBRARY` judges some cases; for a library that watches its memory itself.
"""

import ctypes
import math
import sys

import numpy as np
from acmix_reference import convolve, sliding_window_attention

# height, width, kernel, stride, dilation: more than a tile, less than a vector, windows wider than the map.
SIZES = [(20, 140, 7, 1, 1), (33, 130, 3, 2, 1), (5, 7, 5, 3, 2), (1, 1, 7, 1, 1), (2, 9, 9, 2, 2), (17, 16, 1, 1, 1)]
SIZES += [(18, 1, 3, 1, 1)]  # the last row ends before a vector does


class Kernels:
    """The operators of a library; each returns new arrays."""

    def __init__(self, path):
        self.library = ctypes.CDLL(str(path))

    def set_threads(self, count):
        self.library.acmix_set_threads(count)

    def call(self, name, inputs, shapes):
        """Return the float32 outputs of these shapes; what an operator leaves out stays NaN."""
        arrays = [np.ascontiguousarray(array) for array in inputs]
        assert all(array.dtype in (np.float32, np.int32) for array in arrays)
        outputs = [np.full(shape, np.nan, np.float32) for shape in shapes]
        arrays += outputs
        pointers = (ctypes.c_void_p * len(arrays))(*[array.ctypes.data for array in arrays])
        shapes = [(ctypes.c_int64 * max(array.ndim, 1))(*array.shape) for array in arrays]
        shapes = (ctypes.POINTER(ctypes.c_int64) * len(arrays))(
            *[ctypes.cast(shape, ctypes.POINTER(ctypes.c_int64)) for shape in shapes]
        )
        ranks = (ctypes.c_int * len(arrays))(*[array.ndim for array in arrays])
        assert getattr(self.library, name)(len(arrays), pointers, ranks, shapes, None, None, None) == 0
        return outputs

    def attend(self, qkv, position, window):
        batch, channels, height, width = qkv.shape
        size = -(-height // window[1]), -(-width // window[1])
        return self.call("SlidingWindowAttention", (qkv, position, np.int32(window)), [(batch, channels // 3, *size)])[
            0
        ]

    def attend_gradient(self, qkv, position, window, dout):
        return self.call(
            "SlidingWindowAttentionGradient", (qkv, position, np.int32(window), dout), [qkv.shape, position.shape]
        )

    def convolve(self, inputs, numbers):
        """`inputs`: pieces, layer, bias, weight."""
        pieces, weight, stride = inputs[0], inputs[3], numbers[1]
        size = -(-pieces.shape[2] // stride), -(-pieces.shape[3] // stride)
        return self.call("ConvolutionPath", (*inputs, np.int32(numbers)), [(len(pieces), len(weight), *size)])[0]

    def convolve_gradient(self, inputs, numbers, dout):
        shapes = [value.shape for value in inputs]
        return self.call("ConvolutionPathGradient", (*inputs, np.int32(numbers), dout), shapes)

    def convolve_reduced(self, inputs, numbers):
        """`inputs`: whole pieces, reduced pieces, layer, weight."""
        shape = len(inputs[0]), len(inputs[3]), *inputs[0].shape[2:]
        return self.call("ReducedConvolutionPath", (*inputs, np.int32(numbers)), [shape])[0]

    def convolve_reduced_gradient(self, inputs, numbers, dout):
        shapes = [value.shape for value in inputs]
        return self.call("ReducedConvolutionPathGradient", (*inputs, np.int32(numbers), dout), shapes)

    def convolve_3x3(self, x, weight):
        return self.call("Convolution3x3", (x, weight), [(len(x), len(weight), *x.shape[2:])])[0]

    def convolve_3x3_gradient(self, x, weight, dout):
        return self.call("Convolution3x3Gradient", (x, weight, dout), [x.shape, weight.shape])

    def add(self, alpha, a, beta, b):
        return self.call("WeightedSum", (alpha, a, beta, b), [a.shape])[0]

    def add_gradient(self, alpha, a, beta, b, dout):
        inputs = alpha, a, beta, b, dout
        return self.call("WeightedSumGradient", inputs, [value.shape for value in inputs[:4]])

    def gelu(self, x):
        return self.call("Gelu", (x,), [x.shape])[0]

    def gelu_gradient(self, x, dout):
        return self.call("GeluGradient", (x, dout), [x.shape])[0]

    def suppress(self, boxes, scores, iou, most):
        numbers = np.float32([iou, most])
        return self.call("NonMaximumSuppression", (boxes, scores, numbers), [scores.shape])[0]


def judge(values, function, cotangent, out, gradients):
    """Compare an output with `function(*values)`, and its gradients with the numerical slope along a random line."""
    expected = function(*values)
    assert np.abs(out - expected).max() < 1e-5 * max(np.abs(expected).max(), 1)
    rng = np.random.default_rng(1)
    line = [rng.standard_normal(value.shape) for value in values]

    def along(step):
        return (cotangent * function(*[value + step * way for value, way in zip(values, line)])).sum()

    slope = (along(1e-5) - along(-1e-5)) / 2e-5
    parts = [(gradient.astype(np.float64) * way).sum() for gradient, way in zip(gradients, line)]
    assert abs(sum(parts) - slope) < 1e-4 * max(np.abs(parts).sum(), 1)


def judge_attention(kernels, size, heads, channels, seed):
    height, width, kernel, stride, dilation = size
    rng = np.random.default_rng(seed)
    qkv = rng.standard_normal((2, 3 * heads * channels, height, width)).astype(np.float32)
    position = rng.standard_normal((channels, 2)).astype(np.float32)

    def attention(qkv, position):
        return sliding_window_attention(*np.split(qkv, 3, 1), position, heads, kernel, stride, dilation)

    window = kernel, stride, dilation
    out = kernels.attend(qkv, position, window)
    dout = rng.standard_normal(out.shape).astype(np.float32)
    gradients = kernels.attend_gradient(qkv, position, window, dout)
    judge([qkv.astype(np.float64), position.astype(np.float64)], attention, dout, out, gradients)


def judge_convolution(kernels, size, pieces, slots, outputs, has_bias, seed):
    height, width, kernel, stride, dilation = size
    rng = np.random.default_rng(seed)
    taps = kernel * kernel
    shapes = [
        (2, pieces * slots, height, width),
        (taps, pieces, 1, 1),
        (taps,),
        (slots * outputs, taps, kernel, kernel),
    ]
    values = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    values[2] *= has_bias

    def path(x, layer, bias, weight):
        by_slot = x.reshape(2, pieces, slots, height, width)
        made = np.einsum("tp,bpdhw->bdthw", layer[..., 0, 0], by_slot) + has_bias * bias[:, None, None]
        return convolve(made.reshape(2, -1, height, width), weight, stride, dilation, slots)

    numbers = kernel, stride, dilation, pieces, has_bias
    out = kernels.convolve(values, numbers)
    dout = rng.standard_normal(out.shape).astype(np.float32)
    gradients = kernels.convolve_gradient(values, numbers, dout)
    if not has_bias:
        gradients[2][:] = 0  # of what is no bias
    judge([value.astype(np.float64) for value in values], path, dout, out, gradients)


def judge_reduced_convolution(kernels, height, width, kernel, reduction, heads, slots, seed):
    rng = np.random.default_rng(seed)
    taps = kernel * kernel
    shapes = [(2, heads * slots, height, width), (2, 2 * heads * slots, height // reduction, width // reduction)]
    shapes += [(taps, 3 * heads, 1, 1), (slots * heads, taps, kernel, kernel)]
    values = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]

    def of_repeated(whole, reduced, layer, weight):
        rows, columns = (np.minimum(np.arange(n) // reduction, n // reduction - 1) for n in (height, width))
        pieces = np.concatenate([whole, reduced[:, :, rows][..., columns]], 1)
        by_slot = pieces.reshape(2, 3 * heads, slots, height, width)
        made = np.einsum("tp,bpdhw->bdthw", layer[..., 0, 0], by_slot)
        return convolve(made.reshape(2, -1, height, width), weight, 1, 1, slots)

    numbers = kernel, 1, 1, 3 * heads, reduction
    out = kernels.convolve_reduced(values, numbers)
    dout = rng.standard_normal(out.shape).astype(np.float32)
    gradients = kernels.convolve_reduced_gradient(values, numbers, dout)
    judge([value.astype(np.float64) for value in values], of_repeated, dout, out, gradients)


def judge_convolution_3x3(kernels, height, width, inputs, outputs, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2, inputs, height, width)).astype(np.float32)
    weight = rng.standard_normal((outputs, inputs, 3, 3)).astype(np.float32)
    out = kernels.convolve_3x3(x, weight)
    dout = rng.standard_normal(out.shape).astype(np.float32)
    values = [x.astype(np.float64), weight.astype(np.float64)]
    gradients = kernels.convolve_3x3_gradient(x, weight, dout)
    judge(values, lambda x, weight: convolve(x, weight, 1, 1, 1), dout, out, gradients)


def judge_sum(kernels, size, seed):
    rng = np.random.default_rng(seed)
    alpha, a, beta, b, dout = (rng.standard_normal(n).astype(np.float32) for n in (1, size, 1, size, size))
    values = [value.astype(np.float64) for value in (alpha, a, beta, b)]
    out, gradients = kernels.add(alpha, a, beta, b), kernels.add_gradient(alpha, a, beta, b, dout)
    judge(values, lambda alpha, a, beta, b: alpha * a + beta * b, dout, out, gradients)


def judge_gelu(kernels, size, spread, seed):
    rng = np.random.default_rng(seed)
    x, dout = (rng.standard_normal(size) * spread).astype(np.float32), rng.standard_normal(size).astype(np.float32)
    out, gradient = kernels.gelu(x), kernels.gelu_gradient(x, dout)
    exact = x.astype(np.float64)
    below = np.array([math.erfc(-value / math.sqrt(2)) / 2 for value in exact])
    assert np.abs(out - exact * below).max() < 5e-7 * max(spread, 1)
    slope = below + exact * np.exp(-exact * exact / 2) / math.sqrt(2 * math.pi)
    assert np.abs(gradient - dout * slope).max() < 2e-6


def judge_suppression(kernels, images, size, most, seed):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 60, (images, size, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0, 40, corners.shape)], 2).astype(np.float32)
    scores = -np.sort(-rng.uniform(-0.3, 1, (images, size)), 1).astype(np.float32)
    stays = kernels.suppress(boxes, scores, 0.5, most)
    for own, values, got in zip(boxes, scores, stays):
        kept = []
        for number, (box, score) in enumerate(zip(own, values)):
            low, high = np.maximum(own[kept, :2], box[:2]), np.minimum(own[kept, 2:], box[2:])
            shared = np.maximum(high - low, 0).prod(1)
            areas = [np.prod(boxes[..., 2:] - boxes[..., :2], -1) for boxes in (own[kept], box)]
            is_free = not (shared / np.maximum(areas[0] + areas[1] - shared, 1e-30) > 0.5).any()
            if is_free and score >= 0 and len(kept) < most:
                kept.append(number)
        assert np.flatnonzero(got).tolist() == kept and set(got) <= {0.0, 1.0}


def main():
    kernels = Kernels(sys.argv[1])
    kernels.set_threads(2)
    for seed, size in enumerate(SIZES):
        judge_attention(kernels, size, heads=2, channels=5, seed=seed)
        for has_bias in (True, False):
            judge_convolution(kernels, size, pieces=6, slots=3, outputs=2, has_bias=has_bias, seed=seed)
            judge_convolution(kernels, size, pieces=13, slots=2, outputs=5, has_bias=has_bias, seed=seed)
        judge_sum(kernels, 6**seed, seed)
        judge_gelu(kernels, 6**seed, 2.0, seed)
        judge_suppression(kernels, 2, 3**seed, 3 * seed, seed)
        judge_convolution_3x3(kernels, *size[:2], inputs=1 + 7 * seed, outputs=49 - 8 * seed, seed=seed)
        judge_reduced_convolution(kernels, *size[:2], min(size[2], 5), min(*size[:2], 1 + seed), 2, 3, seed)


if __name__ == "__main__":
    main()
