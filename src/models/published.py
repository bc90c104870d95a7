# SPDX-License-Identifier: Apache-2.0
"""How the tensors of the published PyTorch code are called and cut, for each parameter of ours."""

import re

import numpy as np

_BATCH_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}

# Applied in order to a parameter's name; "a|b" are tensors that are stacked along the first axis.
RESNET_RULES = (
    (r"^stem\.(conv|bn)\.", r"\g<1>1."),
    (r"((?:bn\d|downsample\.1)\.)(gamma|beta|moving_mean|moving_variance)$", lambda m: m[1] + _BATCH_NORM[m[2]]),
    (r"\.alpha$", ".rate1"),
    (r"\.beta$", ".rate2"),
    (r"\.attention\.position\.", ".conv_p."),
    (r"\.convolution\.fc\.", ".fc."),
    (r"\.convolution\.shift\.", ".dep_conv."),
    (r"^(.*\.)qkv(\..*)$", r"\1conv1\2|\1conv2\2|\1conv3\2"),
)


def published_names(name, rules=RESNET_RULES):
    """Return the names of the published tensors that, stacked along the first axis, make our parameter `name`."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name.split("|")


def from_published(network, tensor, rules=RESNET_RULES):
    """Gather the values of all parameters of a network.

    Args:
        network (nn.Cell): a network of `src.models`.
        tensor: `tensor(name)` returns the published array of that name.
        rules: those of the network's family.

    Returns:
        dict: our parameter name -> float32 array of our shape.
    """
    values = {}
    for name, parameter in network.parameters_and_names():
        stacked = np.concatenate([tensor(part) for part in published_names(name, rules)])
        values[name] = stacked.reshape(parameter.shape).astype(np.float32)
    return values
