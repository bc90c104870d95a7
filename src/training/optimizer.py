# SPDX-License-Identifier: Apache-2.0
"""The optimiser and which parameters it decays."""

from mindspore import nn

from src.training.adamw import AdamW

# Last names of tables that are looked up or added, not multiplied with: decay would only flatten them.
TABLES = ("position", "class_token")


def parameter_groups(network, weight_decay):
    """Split the trainable parameters by weight decay: `weight_decay` on weights, none on all else.

    Norm scales, biases, alpha and beta (at most one axis) and tables of positions are no weights: decaying them would
    pull the network towards features of no scale and a mix of neither path. Frozen parameters are left out.
    """
    trainable = network.trainable_params()
    weights = [p for p in trainable if p.ndim > 1 and p.name.rpartition(".")[2] not in TABLES]
    taken = {id(parameter) for parameter in weights}
    groups = [
        {"params": weights, "weight_decay": weight_decay},
        {"params": [p for p in trainable if id(p) not in taken], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def create_optimizer(network, config, lrs):
    """Return the optimiser of an `OptimizerConfig` over the parameters of `network`.

    "momentum" is SGD: `velocity = momentum * velocity + gradient; weight -= lr * velocity`, the weight decay being part
    of the gradient. "adamw" is `AdamW`, whose weight decay is apart from the gradient.

    Args:
        network (nn.Cell): the network to train.
        config (OptimizerConfig): which optimiser, and its numbers.
        lrs (numpy.ndarray): float32 (steps,), the learning rate of each step; the optimiser's `global_step` is the
            position in it.
    """
    groups, rates = parameter_groups(network, config.weight_decay), lrs.tolist()
    if config.name == "adamw":
        return AdamW(groups, rates, (config.beta1, config.beta2), config.epsilon)
    return nn.Momentum(groups, rates, config.momentum)
