# SPDX-License-Identifier: Apache-2.0
"""The optimiser and which parameters it decays."""

from mindspore import nn


def parameter_groups(network, weight_decay):
    """Split the trainable parameters by weight decay: `weight_decay` on weights, none on anything of at most one axis.

    Norm scales, biases, alpha and beta have at most one axis; decaying them would pull the network towards features of
    no scale and a mix of neither path. Frozen parameters are left out.
    """
    trainable = network.trainable_params()
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def create_optimizer(network, config, lrs, loss_scale=1.0):
    """Return SGD with momentum over the parameters of `network`.

    `velocity = momentum * velocity + gradient; weight -= lr * velocity`, the weight decay being part of the gradient.

    Args:
        network (nn.Cell): the network to train.
        config (OptimizerConfig): momentum, weight_decay.
        lrs (numpy.ndarray): float32 (steps,), the learning rate of each step; the optimiser's `global_step` is the
            position in it.
        loss_scale (float): what the loss was multiplied with; the gradients are divided by it.
    """
    return nn.Momentum(
        parameter_groups(network, config.weight_decay),
        learning_rate=lrs.tolist(),
        momentum=config.momentum,
        loss_scale=loss_scale,
    )
