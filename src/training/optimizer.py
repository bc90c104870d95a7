# SPDX-License-Identifier: Apache-2.0
"""The optimiser, which parameters it decays, and how fast each may learn."""

from src.training.adamw import AdamW
from src.training.lamb import Lamb
from src.training.momentum import Momentum
from src.training.name_patterns import matching

# Last names of tables that are looked up or added, not multiplied with: decay would only flatten them.
TABLES = ("position", "class_token")
NONE = "none"  # no parameter at all, where patterns of names stand


def parameter_groups(network, weight_decay, factors=None, no_decay=""):
    """Split the trainable parameters by weight decay, `weight_decay` or none, and by factor.

    Unless `no_decay` says which have none, it is all but weights. Norm scales, biases, alpha and beta (at most one
    axis) and tables of positions are no weights: decaying them would pull the network towards features of no scale and
    a mix of neither path. Frozen parameters are left out.

    Args:
        network (nn.Cell): the network to train.
        weight_decay (float): of those that have some.
        factors (dict): parameter name -> factor on the learning rate, see `layer_factors`; None: 1 for all.
        no_decay (str): shell patterns of the names of those without decay, or "none"; "": all but weights.

    Returns:
        list[dict]: "params", "weight_decay" and, with `factors`, "factor" of each group.

    Raises:
        UserError: no trainable parameter matches a pattern.
    """
    groups, trainable = {}, network.trainable_params()
    patterns = [] if no_decay == NONE else no_decay.split()
    if no_decay:
        plain = matching([parameter.name for parameter in trainable], patterns, "optimizer.no_decay")
    else:
        plain = {p.name for p in trainable if p.ndim < 2 or p.name.rpartition(".")[2] in TABLES}
    for parameter in trainable:
        is_plain = parameter.name in plain
        kind = {"weight_decay": 0.0 if is_plain else weight_decay}
        if factors:
            kind["factor"] = factors[parameter.name]
        groups.setdefault((is_plain, kind.get("factor")), {"params": [], **kind})["params"].append(parameter)
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
    groups = parameter_groups(network, config.weight_decay, factors, config.no_decay)
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
