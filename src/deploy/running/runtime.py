# SPDX-License-Identifier: Apache-2.0
"""A network in three forms, each with `results(images)`: NumPy arrays as the form takes and gives them."""

import mindspore as ms
import onnxruntime
from mindspore import nn

from src.errors import UserError
from src.training.checkpoint import load_weights

PROVIDERS = {"CPU": "CPUExecutionProvider", "GPU": "CUDAExecutionProvider", "Ascend": "CANNExecutionProvider"}
# Nothing but what cannot be gone on from: its exceptions say the rest.
_FATAL = 4


class OnnxModel:
    """An ONNX file in onnxruntime.

    Args:
        path: the file.
        device (str): "CPU", "GPU" or "Ascend".
        threads (int): of the CPU; 0: as many as there are cores.

    Attributes:
        session (onnxruntime.InferenceSession): has the names, shapes and types of what goes in and comes out.

    Raises:
        UserError: this onnxruntime cannot use the device.
    """

    def __init__(self, path, device="CPU", threads=0):
        provider = PROVIDERS[device]
        if provider not in onnxruntime.get_available_providers():
            raise UserError(
                f"this onnxruntime has no {provider}; install the onnxruntime for {device}, or give --device_target CPU"
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _FATAL
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(path), options, providers=[provider])

    def results(self, images):
        return self.session.run(None, {self.session.get_inputs()[0].name: images})


class MindirModel:
    """A MindIR file in MindSpore, on the device that is set up, in graph mode.

    Args:
        path: the file; MindSpore can crash on a damaged one.
        key (bytes): of an encrypted one.
    """

    def __init__(self, path, key=None):
        self.graph = nn.GraphCell(ms.load(str(path), **({"dec_key": key} if key else {})))

    def results(self, images):
        return _arrays(self.graph(ms.Tensor(images)))


class CheckpointModel:
    """A checkpoint in the network it was trained in, on the device that is set up; compiled anew for each B.

    Images are float32 (B, C, H, W); results are what the network gives in evaluation, logits (B, K, ...) or others.

    Args:
        path: a `.ckpt` file of a training.
        network (nn.Cell): of that training, which it fills.

    Attributes:
        network (nn.Cell): the same, in evaluation mode.
        meta (dict): what the training wrote beside the weights.

    Raises:
        UserError: the checkpoint is damaged or of another model.
    """

    def __init__(self, path, network):
        self.network = network
        self.meta = load_weights(network, path)
        self.network.set_train(False)

    def results(self, images):
        return _arrays(self.network(ms.Tensor(images)))


def _arrays(results):
    """Return what a graph gives, a Tensor or a tuple of them, as a list of arrays."""
    return [part.asnumpy() for part in (results if isinstance(results, tuple) else (results,))]
