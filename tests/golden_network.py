# SPDX-License-Identifier: Apache-2.0
"""A network with the rule-made weights that its golden figures were measured with."""

import json
from pathlib import Path

from golden import rule
from mindspore import Tensor

from src.models import create_model
from src.models.complexity import count_parameters
from src.models.published import from_published
from src.ops.draws import random_state

GOLDEN = Path(__file__).parent / "golden"


def fill(network, tensors, rules):
    """Give a network the published tensors, every one of which must be used; what counts draws is no weight."""
    draws = random_state(network)
    parameters = {parameter.name: parameter for parameter in network.get_parameters() if parameter.name not in draws}
    shapes = {name: parameter.shape for name, parameter in parameters.items()}
    for name, value in from_published(shapes, tensors, rules).items():
        parameters[name].set_data(Tensor(value))


def golden_network(name, rules):
    """Return (golden figures, network); every published tensor must be used, and the count be exact."""
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    tensors = {tensor: rule.make(tensor, shape, golden["seed"]) for tensor, shape in golden["tensors"]}
    network = create_model(name)
    fill(network, tensors, rules)
    assert count_parameters(network) == golden["params"]
    return golden, network
