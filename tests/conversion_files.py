# SPDX-License-Identifier: Apache-2.0
"""Small models of each family as checkpoints and as PyTorch files, for which NumPy archives stand."""

import dataclasses

import mindspore as ms
import numpy as np
import pytest

from src.config import ModelConfig
from src.convert import conversion
from src.convert.conversion import to_pytorch
from src.convert.forms import form_of
from src.ops.draws import random_state
from src.training.checkpoint import read_checkpoint, save_weights

RESNET = ModelConfig("acmix_resnet26", num_classes=5, image_size=32, options={"stem": "small", "width": 8})
SWIN = ModelConfig(
    "acmix_swin_tiny",
    num_classes=5,
    image_size=32,
    options={"width": 12, "depths": [2, 2, 1, 1], "patch": 2, "window": 4},
)
SAN = ModelConfig("san10", num_classes=5, image_size=32, options={"stem": "small", "width": 32})
PVT = ModelConfig("pvt_tiny", num_classes=5, image_size=32, options={"width": 8, "depths": [1, 1, 1, 1]})
FAMILIES = [RESNET, dataclasses.replace(RESNET, name="resnet50"), SWIN, SAN, PVT]
SWIN_PLAIN = dataclasses.replace(SWIN, name="swin_tiny")


@pytest.fixture
def archives(monkeypatch):
    """Read and write `.npz` in place of PyTorch files."""

    def write(path, arrays):
        with open(path, "wb") as file:
            np.savez(file, **arrays)

    monkeypatch.setattr(conversion, "read_state_dict", lambda path, entry=None: (dict(np.load(path)), []))
    monkeypatch.setattr(conversion, "write_state_dict", write)


def checkpoint(path, model, seed=0):
    """Write a checkpoint whose values are all different; return them by name."""
    network, rng = form_of(model).build_ours(model), np.random.default_rng(seed)
    counters = random_state(network)
    parameters = [parameter for parameter in network.get_parameters() if parameter.name not in counters]
    for parameter in parameters:
        parameter.set_data(ms.Tensor(rng.standard_normal(parameter.shape, np.float32)))
    save_weights(path, network, {"model": dataclasses.asdict(model)})
    return {parameter.name: parameter.asnumpy() for parameter in parameters}


def published_file(folder, model):
    """Write a published file; return its path."""
    checkpoint(folder / "made.ckpt", model)
    to_pytorch(folder / "made.ckpt", folder / "made.pth", model)
    return folder / "made.pth"


def weights(path):
    return {name: parameter.asnumpy() for name, parameter in read_checkpoint(path)[0].items()}
