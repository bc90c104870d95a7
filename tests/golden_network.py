# SPDX-License-Identifier: Apache-2.0
"""A network with the rule-made weights that its golden figures were measured with."""

import json
from pathlib import Path

from golden import rule
from mindspore import Tensor

from src.models import create_model
from src.models.complexity import count_parameters
from src.models.published import RESNET_RULES, from_published

GOLDEN = Path(__file__).parent / "golden"


def golden_network(name, rules=RESNET_RULES):
    """Return (golden figures, network); every published tensor must be used once, and the count be exact."""
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    shapes = {tensor: tuple(shape) for tensor, shape in golden["tensors"]}
    unused = dict(shapes)

    def make(tensor):
        unused.pop(tensor)
        return rule.make(tensor, shapes[tensor], golden["seed"])

    network = create_model(name)
    values = from_published(network, make, rules)
    assert not unused
    for parameter_name, parameter in network.parameters_and_names():
        parameter.set_data(Tensor(values[parameter_name]))
    assert count_parameters(network) == golden["params"]
    return golden, network
