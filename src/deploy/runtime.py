# SPDX-License-Identifier: Apache-2.0
"""A network in three forms, each with `logits(images)`: float32 (B, C, S, S) -> float32 (B, K), both NumPy."""

import mindspore as ms
import onnxruntime
from mindspore import nn

from src.errors import UserError
from src.training.checkpoint import load_weights
from src.training.network import build_network

PROVIDERS = {"CPU": "CPUExecutionProvider", "GPU": "CUDAExecutionProvider", "Ascend": "CANNExecutionProvider"}


class OnnxModel:
    """An ONNX file in onnxruntime; B is the file's.

    Args:
        path: an intact file.
        device (str): "CPU", "GPU" or "Ascend".

    Raises:
        UserError: this onnxruntime cannot use the device.
    """

    def __init__(self, path, device="CPU"):
        provider = PROVIDERS[device]
        if provider not in onnxruntime.get_available_providers():
            raise UserError(
                f"this onnxruntime has no {provider}; install the onnxruntime for {device}, or give --device_target CPU"
            )
        self.session = onnxruntime.InferenceSession(str(path), providers=[provider])

    def logits(self, images):
        return self.session.run(None, {self.session.get_inputs()[0].name: images})[0]


class MindirModel:
    """A MindIR file in MindSpore, on the device that is set up, in graph mode; B is the file's.

    Args:
        path: an intact file; MindSpore can crash on others.
    """

    def __init__(self, path):
        self.graph = nn.GraphCell(ms.load(str(path)))

    def logits(self, images):
        return self.graph(ms.Tensor(images)).asnumpy()


class CheckpointModel:
    """A checkpoint in the network it was trained in, on the device that is set up; compiled anew for each B.

    Args:
        path: a `.ckpt` file of a training.
        config (ModelConfig): the network.

    Attributes:
        network (nn.Cell): in evaluation mode.
        meta (dict): what the training wrote beside the weights.

    Raises:
        UserError: an unknown model, or a checkpoint that is damaged or of another model.
    """

    def __init__(self, path, config):
        self.network = build_network(config)
        self.meta = load_weights(self.network, path)
        self.network.set_train(False)

    def logits(self, images):
        return self.network(ms.Tensor(images)).asnumpy()
