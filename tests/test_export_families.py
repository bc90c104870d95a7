# SPDX-License-Identifier: Apache-2.0
"""A small network of each family, of rectangles, through the whole chain, with other wishes each: all of them meet."""

import collections
from pathlib import Path

import mindspore as ms
import numpy as np
import onnx
import pytest
from exported_run import opencv_logits, write_images, write_run

from src.deploy.card import read_card
from src.deploy.export import export_checkpoint
from src.deploy.running.runtime import CheckpointModel, MindirModel, OnnxModel
from src.training.deployment import softmax
from src.training.network import build_network

FAMILIES = {
    "acmix_swin_tiny": ([27, 33], "{patch: 2, width: 16, heads: 2, depths: [2, 1, 1, 1], window: 4}"),
    "acmix_pvt_tiny": ([32, 40], "{width: 8, depths: [1, 1, 1, 1]}"),
    "acmix_san10": ([40, 32], "{stem: small, width: 32, depths: [1, 1, 1, 1, 1]}"),
}
KEY = b"a key of 16 byte"


def write_family(name, folder):
    size, options = FAMILIES[name]
    words = ["--model.name", name, "--model.image_size", str(size), "--data.resize", "40"]
    return write_run(folder, *words, options=options)


@pytest.fixture(scope="module")
def swin(tmp_path_factory):
    return write_family("acmix_swin_tiny", tmp_path_factory.mktemp("swin"))


@pytest.fixture(scope="module")
def pvt(tmp_path_factory):
    return write_family("acmix_pvt_tiny", tmp_path_factory.mktemp("pvt"))


@pytest.fixture(scope="module")
def san(tmp_path_factory):
    return write_family("acmix_san10", tmp_path_factory.mktemp("san"))


def export(config, kind, *arguments, **wishes):
    """Return the path of the only file, and its description as read back."""
    checkpoint = Path(config.output_dir, "best.ckpt")
    ((path, card),) = export_checkpoint(config, checkpoint, [kind], *arguments, **wishes).items()
    assert read_card(path).items() >= card.items()
    return path, card


def operators(path):
    return collections.Counter(node.op_type for node in onnx.load(path).graph.node)


def test_the_whole_function_in_a_current_onnx_file(swin):
    """Any number of pixels to probabilities, GELU and LayerNormalization as one node each."""
    path, card = export(swin, "onnx", None, opset=20, softmax=True, preprocess=True)
    assert path.name == "acmix_swin_tiny_27x33_bN_pixels_softmax.onnx"
    assert card["input"] == {"name": "image", "shape": ["batch", 27, 33, 1], "dtype": "uint8", "layout": "NHWC"}
    assert card["output"] == {"name": "probabilities", "shape": ["batch", 10], "dtype": "float32"}
    assert card["max_difference"] < 1e-5
    count = operators(path)
    # Two in each block, three mergers, one after the patches and one before the head.
    assert count["LayerNormalization"] == 2 * 5 + 3 + 2 and count["Gelu"] == 5
    assert not {"Pow", "Sqrt", "Erf", "Sigmoid", "ReduceSumSquare"} & {*count}
    assert card["atc"] == {"reads": False, "why_not": ["opset 20 is above 18", "Gelu is not among its operators"]}
    pixels = np.random.default_rng(3).integers(0, 256, (4, 27, 33, 1), np.uint8)
    images = ((pixels / 255 - 0.3) / 0.35).transpose(0, 3, 1, 2).astype(np.float32)
    expected = softmax(
        CheckpointModel(Path(swin.output_dir, "best.ckpt"), build_network(swin.model)).results(images)[0]
    )
    model = OnnxModel(path)
    np.testing.assert_allclose(model.results(pixels)[0], expected, atol=1e-5)
    np.testing.assert_allclose(model.results(pixels[2:3])[0], expected[2:3], atol=1e-5)


def test_an_encrypted_mindir(swin, capfd):
    """With its key it computes what the network does; without, or with another, it does not load; the key is secret."""
    path, card = export(swin, "mindir", 2, key=KEY)
    assert card["encrypted"] is True and card["max_difference"] < 1e-5
    said = capfd.readouterr()
    files = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert KEY not in files and KEY.decode() not in said.out + said.err
    for key in (None, KEY[::-1]):
        with pytest.raises(RuntimeError, match="decrypt failed") as refused:
            MindirModel(path, key)
        assert KEY.decode() not in str(refused.value)


def test_onnx_in_float16(pvt):
    """Half the size; all numbers are float16, for any number of images."""
    path, card = export(pvt, "onnx", None, dtype="float16")
    assert path.name == "acmix_pvt_tiny_32x40_bN_fp16.onnx"
    assert card["input"]["dtype"] == card["output"]["dtype"] == "float16" and card["tolerance"] == 1e-2
    assert 1e-6 < card["max_difference"] < 1e-2
    graph = onnx.load(path).graph
    assert onnx.TensorProto.FLOAT not in {tensor.data_type for tensor in graph.initializer}
    assert not {"Cast", "Sqrt"} & {*operators(path)} and card["atc"]["reads"]
    images = np.random.default_rng(3).standard_normal((4, 1, 32, 40)).astype(np.float16)
    model = OnnxModel(path)
    assert model.results(images)[0].dtype == np.float16
    np.testing.assert_allclose(model.results(images)[0][1:2], model.results(images[1:2])[0], rtol=1e-2, atol=1e-2)


def test_mindir_in_float16(pvt):
    """The whole function in half the size."""
    path, card = export(pvt, "mindir", 2, dtype="float16", softmax=True, preprocess=True)
    assert path.name == "acmix_pvt_tiny_32x40_b2_pixels_softmax_fp16.mindir"
    assert card["input"]["dtype"] == "uint8" and card["output"]["dtype"] == "float16"
    assert 1e-7 < card["max_difference"] < 1e-2
    assert {parameter.dtype for parameter in MindirModel(path).graph.get_parameters()} == {ms.float16}


def test_any_number_of_images_in_the_oldest_opset(san):
    """Attention without softmax too takes any number of images."""
    path, card = export(san, "onnx", None)
    assert card["max_difference"] < 1e-5 and onnx.load(path).opset_import[0].version == 11 and card["atc"]["reads"]
    images = np.random.default_rng(3).standard_normal((7, 1, 40, 32)).astype(np.float32)
    model = OnnxModel(path)
    one_by_one = np.concatenate([model.results(image[None])[0] for image in images])
    np.testing.assert_allclose(model.results(images)[0], one_by_one, atol=1e-5 * np.abs(one_by_one).max())


@pytest.mark.parametrize(("family", "opset"), [("san", 17), ("swin", 20), ("pvt", 11)])
def test_opencv_reads_a_fixed_batch(request, family, opset):
    """A runtime by others than onnxruntime's agrees with it, and `atc` has its operators; ACmix-ResNet elsewhere."""
    path, card = export(request.getfixturevalue(family), "onnx", 2, opset=opset)
    assert card["atc"]["reads"] == (opset <= 18)
    images = np.random.default_rng(3).standard_normal(card["input"]["shape"]).astype(np.float32)
    expected = OnnxModel(path).results(images)[0]
    assert np.ptp(expected, axis=0).max() > 0.05 * np.abs(expected).max()
    np.testing.assert_allclose(opencv_logits(path, images), expected, atol=1e-5 * np.abs(expected).max())


def test_int8(tmp_path):
    """Weights of one byte with a scale for each channel; top-1 before and after where there are labelled images."""
    write_images(tmp_path / "images")
    words = ["--model.name", "resnet26", "--data_dir", str(tmp_path / "images")]
    config = write_run(tmp_path, *words)
    wishes = {"quantize": "int8", "calibration_dir": str(tmp_path / "images"), "preprocess": True}
    path, card = export(config, "onnx", 4, **wishes)
    assert path.name == "resnet26_32_b4_pixels_int8.onnx"
    quantizing = [f"{name} is not among its operators" for name in ("DequantizeLinear", "QuantizeLinear")]
    assert card["atc"] == {"reads": False, "why_not": quantizing}
    assert set(card["int8"]) == {"images", "agreement", "measure", "before", "after"} and card["int8"]["images"] == 10
    assert card["int8"]["measure"] == "top-1"
    assert card["input"]["dtype"] == "uint8" and card["output"]["dtype"] == "float32"
    graph = onnx.load(path).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    read = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in weights]
    kernels = [weights[node.input[0]] for node in read if len(weights[node.input[0]].dims) == 4]
    assert len(kernels) == operators(path)["Conv"]
    assert {kernel.data_type for kernel in kernels} == {onnx.TensorProto.INT8}
    assert max(len(weights[node.input[1]].dims) for node in read) == 1
