# SPDX-License-Identifier: Apache-2.0
"""The optimiser that made the golden losses."""

from mindspore import nn, ops


class SgdStep(nn.Cell):
    """One step of the plain SGD that made the golden losses: weight decay on everything; returns loss and gradients."""

    def __init__(self, network, lr, momentum, weight_decay):
        super().__init__(auto_prefix=False)
        groups = [{"params": network.trainable_params(), "weight_decay": weight_decay}]
        self.optimizer = nn.Momentum(groups, learning_rate=lr, momentum=momentum)
        self.gradient = ops.value_and_grad(
            nn.WithLossCell(network, nn.CrossEntropyLoss()), None, network.trainable_params()
        )

    def construct(self, image, label):
        loss, gradients = self.gradient(image, label)
        return ops.depend(loss, self.optimizer(gradients)), gradients
