# SPDX-License-Identifier: Apache-2.0
"""A network of a few operators as an exported file, for tests of the programs that stand around it.

`tests/golden/lite_tiny.mindir` is this network, for two images at once, as MindSpore Lite 2.0.0 converts it; after a
change here: `python tests/lite_model.py FOLDER`, then `python3.7 scripts/lite_infer.py --model FOLDER/tiny.onnx`.
"""

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

BATCH, SIZE, CHANNELS = 2, 8, 3
LABELS = ["anemone", "barn owl", "cedar", "dhole", "卵"]


def write_model(path):
    """Write the ONNX file and its description: seeded weights, logits that differ clearly between images."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from src.deploy.card import write_card

    rng = np.random.default_rng(0)
    arrays = {
        "kernel": rng.standard_normal((6, CHANNELS, 3, 3)),
        "bias": rng.standard_normal(6),
        "weight": 3 * rng.standard_normal((6, len(LABELS))),
    }
    nodes = [
        # Lite wants all attributes of a convolution.
        helper.make_node(
            *("Conv", ["image", "kernel", "bias"], ["maps"]),
            **{"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [1, 1], "dilations": [1, 1]},
        ),
        helper.make_node("Relu", ["maps"], ["positive"]),
        helper.make_node("ReduceMean", ["positive"], ["features"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["features", "weight"], ["logits"]),
    ]
    shapes = {"image": [BATCH, CHANNELS, SIZE, SIZE], "logits": [BATCH, len(LABELS)]}
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    weights = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "network", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    write_card(
        path,
        {
            "input": {"name": "image", "shape": shapes["image"], "dtype": "float32", "layout": "NCHW"},
            "output": {"name": "logits", "shape": shapes["logits"], "dtype": "float32"},
            "preprocessing": {
                "image_size": [SIZE, SIZE],
                "resize": SIZE + 2,
                "interpolation": "bilinear",
                "orientation": "ignore",
                "mean": [0.5, 0.4, 0.3],
                "std": [0.25, 0.2, 0.3],
                "in_channels": CHANNELS,
            },
            "labels": LABELS,
        },
    )


def write_images(folder):
    """Write three noisy images of other sizes than the network's and return their paths."""
    import cv2

    paths = []
    for number, (height, width) in enumerate([(23, 17), (12, 31), (10, 10)]):
        pixels = np.random.default_rng(number).integers(0, 255, (height, width, 3), np.uint8)
        paths.append(folder / f"photo{number}.png")
        cv2.imwrite(str(paths[-1]), pixels)
    return paths


def classified(model, prepared, topk):
    """Return for each prepared image [(label, probability), ...] as onnxruntime's logits say, the largest first."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model))
    for image in prepared:
        (logits,) = session.run(None, {"image": np.stack([image] * BATCH)})
        powers = np.exp(logits[0].astype(float))
        order = np.argsort(-powers)[:topk]
        yield [(LABELS[k], powers[k] / powers.sum()) for k in order]


if __name__ == "__main__":
    write_model(Path(sys.argv[1], "tiny.onnx"))
