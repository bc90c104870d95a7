# SPDX-License-Identifier: Apache-2.0
"""The fused kernels: what they compute, in every form of instruction, and that they touch nothing but their maps."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kernel_calls import (
    SIZES,
    Kernels,
    judge_attention,
    judge_convolution,
    judge_convolution_3x3,
    judge_gelu,
    judge_reduced_convolution,
    judge_sum,
    judge_suppression,
)
from mindspore import Tensor, nn, ops

from src.models import create_model
from src.ops import ACmix
from src.ops.acmix import ConvolutionPath
from src.ops.convolution import Convolution
from src.ops.gelu import Gelu
from src.ops.kernels import FLAGS, SOURCES, fused_form, library
from src.ops.sliding_window import SlidingWindowAttention
from src.ops.spatial_reduction_attention import SpatialReductionAttention

TESTS = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def built():
    """The path of the library."""
    ms.set_context(mode=ms.GRAPH_MODE)
    with fused_form():
        return library()


@pytest.fixture(scope="module")
def kernels(built):
    return Kernels(built)


sizes = st.tuples(
    st.integers(1, 40),
    st.integers(1, 80) | st.integers(1, 300),
    st.sampled_from((1, 3, 5, 7, 9, 17)),
    st.integers(1, 8),
    st.integers(1, 3),
).filter(lambda size: size[0] * size[1] * size[2] ** 2 < 20000 * size[3] ** 2)


@settings(max_examples=25, deadline=None)
@given(size=sizes, heads=st.integers(1, 3), channels=st.integers(1, 13), seed=st.integers(0, 2**31))
def test_attention_is_the_definition(kernels, size, heads, channels, seed):
    """Any map, window, stride and dilation: output by the literal reference, gradients by the numerical slope."""
    judge_attention(kernels, size, heads, channels, seed)


@settings(max_examples=40, deadline=None)
@given(
    size=sizes.filter(lambda size: size[2] <= 5),
    pieces=st.integers(1, 13),
    slots=st.integers(1, 3),
    outputs=st.integers(1, 9),
    has_bias=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_convolution_is_the_definition(kernels, size, pieces, slots, outputs, has_bias, seed):
    """Layer and shift one after another, or multiplied out, whatever is no whole block of anything."""
    judge_convolution(kernels, size, pieces, slots, outputs, has_bias, seed)


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 140),
    kernel=st.sampled_from((1, 3, 5)),
    reduction=st.integers(1, 9),
    heads=st.integers(1, 3),
    slots=st.integers(1, 3),
    seed=st.integers(0, 2**31),
)
def test_convolution_of_reduced_pieces_is_that_of_repeated_ones(
    kernels, height, width, kernel, reduction, heads, slots, seed
):
    """Protects PVT, whose keys and values are fewer than its queries: any reduction, with pixels left over."""
    judge_reduced_convolution(kernels, height, width, kernel, min(reduction, height, width), heads, slots, seed)


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 140)).filter(lambda size: size[0] * size[1] < 1200),
    inputs=st.integers(1, 60),
    outputs=st.integers(1, 60),
    seed=st.integers(0, 2**31),
)
@example(size=(34, 35), inputs=50, outputs=60, seed=0)  # more blocks than the weight's gradient sums at once
def test_convolution_3x3_is_the_definition(kernels, size, inputs, outputs, seed):
    """Protects Winograd's transforms and how they are cut: odd ends, rows that a block ends within, any channels."""
    judge_convolution_3x3(kernels, *size, inputs, outputs, seed)


@settings(max_examples=20, deadline=None)
@given(size=st.integers(1, 50) | st.integers(1, 40000), seed=st.integers(0, 2**31))
def test_the_sum_is_the_definition(kernels, size, seed):
    judge_sum(kernels, size, seed)


@settings(max_examples=20, deadline=None)
@given(size=st.integers(1, 40000), spread=st.sampled_from((0.1, 3.0, 30.0, 1e4)), seed=st.integers(0, 2**31))
def test_gelu_is_the_definition(kernels, size, spread, seed):
    """To the precision of float32, however large the numbers are."""
    judge_gelu(kernels, size, spread, seed)


@settings(max_examples=30, deadline=None)
@given(images=st.integers(1, 3), size=st.integers(1, 200), most=st.integers(1, 60), seed=st.integers(0, 2**31))
def test_suppression_is_the_definition(kernels, images, size, most, seed):
    """Beside a loop over all boxes; no more stay than are asked for, and none where there is no box."""
    judge_suppression(kernels, images, size, most, seed)


@pytest.mark.parametrize("instructions", ["plain", "avx2", "avx512", "none of these"])
def test_every_set_of_instructions(instructions, built):
    """One that the CPU lacks is not taken: the best that it has below it is; a word that is none changes nothing."""
    run_script([str(built)], ACMIX_INSTRUCTIONS=instructions)


def run_script(words, **environment):
    done = subprocess.run(
        [sys.executable, TESTS / "kernel_calls.py", *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


def test_nothing_outside_of_the_maps_is_touched(tmp_path):
    """Protects the memory beside a map, and arithmetic that C++ leaves undefined: the compiler's sanitizers watch.

    With vectors of 16 pixels, as AVX-512 has them, which reach further and which many a CPU would not test.
    """
    compiler = os.environ.get("CXX") or "c++"
    runtime = subprocess.run([compiler, "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
    if not os.path.isabs(runtime):
        pytest.skip("this compiler has no sanitizers")
    flags = [flag for flag in FLAGS if flag != "-O3"] + ["-O1", "-g", "-fsanitize=address,undefined"]
    flags += ["-fno-sanitize-recover=undefined", "-pthread", "-DWIDTH=16"]
    # All three tables have the CPU's plainest instructions here, which are quick to compile.
    tables = []
    for name in ("plain", "avx2", "avx512"):
        text = f'#include "{SOURCES}/kernels.cc"\n' if name == "plain" else f'#include "{SOURCES}/kernels.h"\n'
        if name != "plain":
            text += f"extern const Kernels {name}_kernels = plain_kernels;\n"
        (tmp_path / f"{name}.cc").write_text(text)
        tables.append(tmp_path / f"{name}.cc")
    sources = [*tables, SOURCES / "operators.cc", SOURCES / "threads.cc"]
    made = tmp_path / "watched.so"
    command = [compiler, *flags, "-DKERNELS=plain_kernels", "-shared", *map(str, sources), "-o", str(made)]
    subprocess.run(command, check=True, capture_output=True)
    leaks = "detect_leaks=0"  # Python's own
    run_script([str(made)], LD_PRELOAD=runtime, ASAN_OPTIONS=leaks, ACMIX_INSTRUCTIONS="plain")


@pytest.mark.parametrize("size", SIZES[:2])
def test_any_number_of_threads_gives_the_same_bits(size, kernels):
    """Protects exact resuming on another machine, and that a second graph may run at the same time."""
    rng = np.random.default_rng(0)
    qkv, position = rng.standard_normal((2, 36, *size[:2])), rng.standard_normal((6, 2))
    shapes = (9, 6, 1, 1), (9,), (12, 9, 3, 3)
    path = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    qkv, position, window = qkv.astype(np.float32), position.astype(np.float32), size[2:]
    half = np.float32([0.5])
    # A small map whose 250 outputs are shared out, too.
    shapes = (2, 36, 12, 12), (250, 36, 3, 3), (2, 250, 12, 12), (50, 36, 3, 3), (2, 50, *size[:2])
    small, many, dsmall, weight, dout = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)

    def everything():
        out = kernels.attend(qkv, position, window)
        results = [out, *kernels.attend_gradient(qkv, position, window, out)]
        for has_bias in (False, True):  # layer and shift multiplied out, and one after another
            numbers = 3, *window[1:], 6, has_bias
            out = kernels.convolve([qkv, *path], numbers)
            results += [out, *kernels.convolve_gradient([qkv, *path], numbers, out)]
        results += [kernels.convolve_3x3(qkv, weight), *kernels.convolve_3x3_gradient(qkv, weight, dout)]
        results += [kernels.convolve_3x3(small, many), *kernels.convolve_3x3_gradient(small, many, dsmall)]
        results += [kernels.add(half, qkv, half, qkv), *kernels.add_gradient(half, qkv, half, qkv, qkv)]
        return [*results, kernels.gelu(qkv), kernels.gelu_gradient(qkv, qkv)]

    kernels.set_threads(1)
    expected = everything()
    for count in (2, 3, 16, 2):
        kernels.set_threads(count)
        with ThreadPoolExecutor(3) as callers:
            results = [callers.submit(everything) for _ in range(3)]
        for result in (called.result() for called in results):
            for array, wanted in zip(result, expected):
                np.testing.assert_array_equal(array, wanted)


def test_a_forked_process_has_threads_of_its_own(kernels):
    """Protects data workers and whatever else forks: the child does not wait for threads that only its parent has."""
    kernels.set_threads(3)
    judge_attention(kernels, SIZES[0], 2, 4, 0)
    child = os.fork()
    if not child:
        try:
            judge_attention(kernels, SIZES[0], 2, 4, 0)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class OutputAndGradients(nn.Cell):
    def __init__(self, network):
        super().__init__()
        self.network, self.parameters = network, ms.ParameterTuple(network.trainable_params())
        self.gradient = ops.GradOperation(get_all=True, get_by_list=True, sens_param=True)

    def construct(self, x, dout):
        return self.network(x), self.gradient(self.network, self.parameters)(x, dout)


def flat(results):
    for result in results:
        if isinstance(result, tuple):
            yield from flat(result)
        else:
            yield result.asnumpy().astype(np.float64)


def in_both_forms(make, *inputs):
    """What two Cells of the same random weights give, compiled in the portable form and with the fused kernels."""
    portable, fused = make(), make()
    rng = np.random.default_rng(0)
    for parameter, other in zip(portable.get_parameters(), fused.get_parameters(), strict=True):
        value = Tensor(rng.standard_normal(parameter.shape).astype(np.float32))
        parameter.set_data(value)
        other.set_data(value)
    exact = portable(*inputs)
    with fused_form():
        return exact, fused(*inputs)


class OfMaps(nn.Cell):
    """An attention of tokens and their grid, as one of maps."""

    def __init__(self, attention):
        super().__init__()
        self.attention = attention

    def construct(self, x):
        batch, channels, height, width = x.shape
        return self.attention((x.reshape(batch, channels, height * width).transpose(0, 2, 1), (height, width)))


def convolution_3x3(stride):
    return Convolution(3, 5, 3, stride, pad_mode="pad", padding=1, has_bias=True)


@pytest.mark.parametrize(
    ("make", "channels"),
    [
        pytest.param(lambda: ACmix(3, 16, heads=4), 3, id="one product"),
        pytest.param(lambda: ACmix(3, 12, heads=6, stride=2, shift="fixed"), 3, id="layer first, fixed"),
        pytest.param(lambda: ConvolutionPath(9, 2, 6, has_bias=True), 18, id="bias"),
        pytest.param(lambda: OfMaps(SpatialReductionAttention(12, 2, 3)), 12, id="reduced"),
        pytest.param(Gelu, 3, id="gelu"),
        pytest.param(lambda: convolution_3x3(1), 3, id="3x3"),
        pytest.param(lambda: convolution_3x3(2), 3, id="3x3 of stride 2, which the kernels do not know"),
        pytest.param(lambda: ACmix(3, 8, heads=2, stride=9), 3, id="no stride of the kernels"),
        pytest.param(lambda: ACmix(3, 8, heads=2, shift="slice"), 3, id="slices"),
    ],
)
def test_both_forms_agree(make, channels, built):
    """In a graph, with all gradients; in float16 the kernels' arithmetic loses no more than the portable form's."""
    ms.set_context(mode=ms.GRAPH_MODE)
    rng = np.random.default_rng(1)
    x = Tensor(rng.standard_normal((2, channels, 13, 11)).astype(np.float32))
    dout = Tensor(rng.standard_normal(make()(x).shape).astype(np.float32))
    exact, got = map(list, map(flat, in_both_forms(lambda: OutputAndGradients(make()), x, dout)))
    for one, other in zip(exact, got, strict=True):
        assert np.abs(one - other).max() <= 1e-5 * max(np.abs(one).max(), 1)
    x, dout = x.astype(ms.float16), dout.astype(ms.float16)
    both = map(list, map(flat, in_both_forms(lambda: OutputAndGradients(make().to_float(ms.float16)), x, dout)))
    for one, rounded, other in zip(exact, *both, strict=True):
        lost = np.abs(one - rounded).max()
        assert np.abs(one - other).max() <= 2 * lost + 1e-3 * np.abs(one).max()


def test_values_that_are_not_finite_are_passed_on(kernels):
    """Protects the step's test for finite gradients: no NaN or infinity gets lost in a softmax or a tile."""
    for value in (np.nan, np.inf):
        for part in range(3):
            qkv = np.ones((1, 6, 9, 20), np.float32)
            qkv[0, 2 * part, 4, 9] = value
            out = kernels.attend(qkv, np.ones((2, 2), np.float32), (3, 1, 1))
            assert not np.isfinite(out[0, :, 4, 9]).all()
        maps, weight = np.ones((1, 2, 9, 20), np.float32), np.ones((1, 2, 3, 3), np.float32)
        maps[0, 0, 4, 9] = value
        assert not np.isfinite(kernels.convolve_3x3(maps, weight)[0, 0, 3:6, 8:11]).any()
        dweight = kernels.convolve_3x3_gradient(maps, weight, np.ones((1, 1, 9, 20), np.float32))[1]
        assert not np.isfinite(dweight[0, 0]).any()


def test_a_graph_is_fused_within_the_form_alone(built, tmp_path):
    """Protects exported files from kernels of ours: a network that ran with them is exported without."""
    network = create_model("acmix_resnet26", num_classes=3, image_size=32, stem="small", width=8).set_train(False)
    attentions = [cell for _, cell in network.cells_and_names() if isinstance(cell, SlidingWindowAttention)]
    x = ops.zeros((1, 3, 32, 32), ms.float32)
    with fused_form():
        network(x)
    assert len(attentions) == 8 and all("kernels" in vars(cell) for cell in attentions)
    ms.export(network, x, file_name=str(tmp_path / "network.mindir"), file_format="MINDIR")
    exported = (tmp_path / "network.mindir").read_bytes()
    assert b"Custom" not in exported and b"BatchMatMul" in exported
