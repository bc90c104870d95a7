# SPDX-License-Identifier: Apache-2.0
"""The optimiser, which parameters it decays, and how fast each may learn."""

from src.training.adamw import AdamW
from src.training.lamb import Lamb
from src.training.momentum import Momentum

# Last names of tables that are looked up or added, not multiplied with: decay would only flatten them.
TABLES = ("position", "class_token")


def parameter_groups(network, weight_decay, factors=None):
    """Split the trainable parameters by weight decay, `weight_decay` on weights and none on all else, and by factor.

    Norm scales, biases, alpha and beta (at most one axis) and tables of positions are no weights: decaying them would
    pull the network towards features of no scale and a mix of neither path. Frozen parameters are left out.

    Args:
        network (nn.Cell): the network to train.
        weight_decay (float): that of the weights.
        factors (dict): parameter name -> factor on the learning rate, see `layer_factors`; None: 1 for all.

    Returns:
        list[dict]: "params", "weight_decay" and, with `factors`, "factor" of each group.
    """
    groups = {}
    for parameter in network.trainable_params():
        is_weight = parameter.ndim > 1 and parameter.name.rpartition(".")[2] not in TABLES
        kind = {"weight_decay": weight_decay if is_weight else 0.0}
        if factors:
            kind["factor"] = factors[parameter.name]
        groups.setdefault((not is_weight, kind.get("factor")), {"params": [], **kind})["params"].append(parameter)
    return [groups[kind] for kind in sorted(groups)]


def create_optimizer(network, config, lrs, layer_decay=1.0):
    """Return the optimiser of an `OptimizerConfig` over the parameters of `network`.

    "momentum" is SGD: `velocity = momentum * velocity + gradient; weight -= lr * velocity`, the weight decay being part
    of the gradient. "adamw" and "lamb" are `AdamW` and `Lamb`, whose weight decay is apart from the gradient.

    Args:
        network (nn.Cell): the network to train.
        config (OptimizerConfig): which optimiser, and its numbers.
        lrs (numpy.ndarray): float32 (steps,), the learning rate of each step; the optimiser's `global_step` is the
            position in it.
        layer_decay (float): factor on the learning rate of each layer over that of the next one, see `layer_factors`;
            other than 1, `network` has to be a `Backbone`.
    """
    factors = layer_factors(network, layer_decay) if layer_decay != 1 else None
    groups = parameter_groups(network, config.weight_decay, factors)
    for group in groups:
        if "factor" in group:
            group["lr"] = (lrs * group.pop("factor")).tolist()
    rates = lrs.tolist()
    if config.name == "momentum":
        return Momentum(groups, rates, config.momentum)
    kind = {"adamw": AdamW, "lamb": Lamb}[config.name]
    return kind(groups, rates, (config.beta1, config.beta2), config.epsilon)


def layer_factors(network, decay):
    """Return the factor on the learning rate of each trainable parameter: 1 in the head, `decay` a layer before it.

    Layer-wise decay as BEiT (Bao et al., arXiv 2106.08254) fine-tunes with: the nearer to the image, the more general a
    layer already is. The layers, stem, blocks and head, are those of `Backbone.layers`.

    Args:
        network (Backbone): a classifier.
        decay (float): of each layer over the next one.

    Returns:
        dict: parameter name -> `decay` to the power of the layers after its own.
    """
    factors = {}
    for before_head, cells in enumerate(reversed(network.layers())):
        for cell in cells:
            factors.update({parameter.name: decay**before_head for parameter in cell.trainable_params()})
    return factors
