# SPDX-License-Identifier: Apache-2.0
"""One training step as one graph: loss, gradients, their mean over the workers, the update."""

from mindspore import amp, nn, ops

# Keeps small float16 gradients from vanishing; a constant, so that a resumed run has no scale to restore.
FLOAT16_LOSS_SCALE = 1024.0


def loss_scale_of(amp_level):
    """Return the factor on the loss: 1 in float32 ("O0"), a power of two in float16 ("O2")."""
    return FLOAT16_LOSS_SCALE if amp_level == "O2" else 1.0


def mixed_precision(network, amp_level):
    """Return `network` to compute in float16 except its norms ("O2"), or as it is ("O0"); the logits are float32.

    The parameters stay the same float32 objects under the same `Parameter.name`, so checkpoints do not depend on the
    level; the names by position in the tree (`parameters_and_names()`) do change.
    """
    return amp.auto_mixed_precision(network, amp_level)


class TrainStep(nn.Cell):
    """Update the parameters once and return the loss.

    Unlike `nn.TrainOneStepCell` it runs the forward pass once also when that holds random operators (stochastic depth).

    Args:
        network (nn.Cell): images to float32 logits.
        loss (nn.Cell): logits and labels to the mean loss.
        optimizer (nn.Optimizer): its `loss_scale` is applied to the loss here and taken out by it.
        world (World): with more than one worker the gradients are averaged over them.

    Inputs:
        image (Tensor): float32 (B, C, H, W).
        label (Tensor): int32 (B,).

    Outputs:
        Tensor: float32 (), this worker's mean loss before the update.
    """

    def __init__(self, network, loss, optimizer, world):
        super().__init__(auto_prefix=False)
        self.network = network
        self.network.set_grad()
        self.loss = loss
        self.optimizer = optimizer
        self.loss_scale = optimizer.loss_scale
        self.value_and_gradients = ops.value_and_grad(self.scaled_loss, None, optimizer.parameters)
        self.mean_over_workers = (
            nn.DistributedGradReducer(optimizer.parameters, mean=True, degree=world.size)
            if world.size > 1
            else nn.Identity()
        )
        self.set_train()

    def scaled_loss(self, image, label):
        return self.loss(self.network(image), label) * self.loss_scale

    def construct(self, image, label):
        scaled_loss, gradients = self.value_and_gradients(image, label)
        updated = self.optimizer(self.mean_over_workers(gradients))
        return ops.depend(scaled_loss / self.loss_scale, updated)
