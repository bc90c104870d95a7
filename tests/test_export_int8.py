# SPDX-License-Identifier: Apache-2.0
"""What int8 is judged by: top-1 where images have labels, else likeness; a file that is no use is not written."""

import numpy as np
import pytest
from exported_run import write_images
from onnx_graphs import float32, graph

from src.config import load_config
from src.data import preprocessing
from src.deploy import quantize
from src.deploy.onnx.graph import tidy
from src.deploy.options import Options
from src.deploy.proof import WrongExport
from src.errors import UserError
from src.tasks import create_task

# Two convolutions, of which one is grouped, attention of the pixels to one another, and a linear layer.
NODES = """
maps = Conv<kernel_shape=[4,4], strides=[4,4]>(image, kernel)
slots = Conv<kernel_shape=[1,1], group=2>(maps, grouped)
rows = Reshape(slots, shape)
columns = Transpose<perm=[0,2,1]>(rows)
products = MatMul(columns, rows)
weights = Softmax<axis=-1>(products)
mixed = MatMul(weights, columns)
mean = ReduceMean<axes=[1], keepdims=0>(mixed)
logits = Gemm(mean, head)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_images(folder)
    return folder


def judge(tmp_path, calibration_dir, data_dir):
    """Quantise a small model; returns it with its figures."""
    (tmp_path / "c.yaml").write_text("model: {name: resnet26, num_classes: 10, image_size: 32, in_channels: 1}")
    words = f"--data.resize 36 --data.mean [0.5] --data.std [0.3] --data_dir {data_dir}"
    config = load_config(tmp_path / "c.yaml", words.split())
    weights = {"kernel": float32(6, 1, 4, 4), "grouped": float32(6, 3, 1, 1)}
    constants = {**weights, "shape": np.array([-1, 6, 64]), "head": float32(6, 10, seed=1)}
    model = tidy(graph('float["batch",1,32,32] image) => (float["batch",10] logits', NODES, 17, **constants))
    options = Options(None, quantize="int8", calibration_dir=str(calibration_dir))
    card = {
        "input": {"dtype": "float32", "shape": ["batch", 1, 32, 32]},
        "preprocessing": preprocessing(config.data, 32, 1),
        "labels": [str(number) for number in range(10)],
        "classes": None,
    }
    return quantize.quantize_and_judge(model, create_task(config), card, options)


def test_labelled_images(tmp_path, folder):
    """Top-1 before and after, on evaluation images; attention and grouped convolutions stay in float32."""
    model, figures = judge(tmp_path, folder / "val", folder)
    assert figures["images"] == 10 and figures["agreement"] >= 90
    assert {"before", "after"} < {*figures}
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    inputs = [{makers.get(name) for name in node.input} for node in model.graph.node if node.op_type in quantize.LAYERS]
    assert inputs.count({"DequantizeLinear"}) == 2 and len(inputs) == 5
    assert inputs[1] == {"DequantizeLinear", None}  # of the layer before, and weights in float32
    assert makers["logits"] == "Gemm"  # in float32, so that no two of them are equal


def test_images_without_labels(tmp_path, folder):
    """Where there are no evaluation images, those of the calibration tell how often both find the same class."""
    _, figures = judge(tmp_path, folder / "val", tmp_path / "nothing")
    assert {*figures} == {"images", "agreement"} and figures["images"] == 10


def test_too_little_likeness(tmp_path, folder, monkeypatch):
    """Below the limit there is no file, but another way."""
    monkeypatch.setattr(quantize, "LEAST_AGREEMENT", 101)
    with pytest.raises(WrongExport, match=r"another class for .* of 10 images .* --dtype float16"):
        judge(tmp_path, folder / "val", folder)


@pytest.mark.parametrize("kind", ["missing", "empty", "damaged"])
def test_calibration_images_that_cannot_be_used(tmp_path, folder, kind):
    """One line names the folder or the image."""
    images = tmp_path / kind
    if kind != "missing":
        images.mkdir()
    if kind == "damaged":
        (images / "broken.png").write_bytes(next(folder.rglob("*.png")).read_bytes()[:60])
    with pytest.raises(UserError, match="broken" if kind == "damaged" else str(images)):
        judge(tmp_path, images, folder)
