# SPDX-License-Identifier: Apache-2.0
"""One training step as one graph: loss, gradients, their mean over the workers, clipping, the update."""

from mindspore import amp, nn, ops
from mindspore import dtype as mstype

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
        optimizer (nn.Optimizer): takes the gradients of its `parameters`.
        world (World): with more than one worker the gradients are averaged over them.
        loss_scale (float): factor on the loss, taken out of the gradients again, see `loss_scale_of`.
        clip_norm (float): gradients whose norm, over all parameters together, is above this are shrunk to it (Pascanu
            et al., arXiv 1211.5063); 0 leaves them alone.

    Inputs:
        image (Tensor): float32 (B, C, H, W).
        label (Tensor): int32 (B,), or float32 (B, K), the probability of each class.

    Outputs:
        Tensor: float32 (), this worker's mean loss before the update.
    """

    def __init__(self, network, loss, optimizer, world, loss_scale=1.0, clip_norm=0.0):
        super().__init__(auto_prefix=False)
        self.network = network
        self.network.set_grad()
        self.loss = loss
        self.optimizer = optimizer
        self.loss_scale = loss_scale
        self.clip_norm = clip_norm
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
        gradients = self.mean_over_workers(gradients)
        if self.loss_scale != 1 or self.clip_norm > 0:
            factor = 1 / self.loss_scale
            if self.clip_norm > 0:
                factor = ops.minimum(factor, self.clip_norm / global_norm(gradients))
            gradients = ops.HyperMap()(ops.partial(_scaled, factor), gradients)
        return ops.depend(scaled_loss / self.loss_scale, self.optimizer(gradients))


def global_norm(tensors):
    """Return the Euclidean norm of all elements of a tuple of Tensors together, float32 ()."""
    return ops.sqrt(ops.addn(ops.HyperMap()(_sum_of_squares, tensors)))


_sum_of_squares = ops.MultitypeFuncGraph("sum_of_squares")
_scaled = ops.MultitypeFuncGraph("scaled")


@_sum_of_squares.register("Tensor")
def _(tensor):
    return ops.square(tensor.astype(mstype.float32)).sum()


@_scaled.register("Tensor", "Tensor")
@_scaled.register("Number", "Tensor")
def _(factor, tensor):
    return tensor * factor
