# SPDX-License-Identifier: Apache-2.0
"""One training step as one graph: loss, gradients, their mean over the workers, clipping, the update."""

from mindspore import amp, nn, ops
from mindspore import dtype as mstype


class TrainStep(nn.Cell):
    """Update the parameters once and return the loss.

    Unlike `nn.TrainOneStepCell` it runs the forward pass once also when that holds random operators (stochastic depth).

    Args:
        network (nn.Cell): images to float32 logits.
        loss (nn.Cell): logits and labels to the mean loss.
        optimizer (nn.Optimizer): takes the gradients of its `parameters`.
        world (World): with more than one worker the gradients are averaged over them.
        scaler (mindspore.amp.LossScaler, None): scales the loss and its gradients back, see `create_scaler`. A
            step whose gradients are not finite then changes no parameter.
        clip_norm (float): gradients whose norm, over all parameters together, is above this are shrunk to it (Pascanu
            et al., arXiv 1211.5063); 0 leaves them alone.

    Inputs:
        image (Tensor): float32 (B, C, H, W).
        label (Tensor): int32 (B,), or float32 (B, K), the probability of each class.

    Outputs:
        Tensor: float32 (), this worker's mean loss before the update.
    """

    def __init__(self, network, loss, optimizer, world, scaler=None, clip_norm=0.0):
        super().__init__(auto_prefix=False)
        self.network = network
        self.network.set_grad()
        self.loss = loss
        self.optimizer = optimizer
        self.scaler = scaler
        self.clip_norm = clip_norm
        self.value_and_gradients = ops.value_and_grad(self.scaled_loss, None, optimizer.parameters)
        self.mean_over_workers = (
            nn.DistributedGradReducer(optimizer.parameters, mean=True, degree=world.size)
            if world.size > 1
            else nn.Identity()
        )
        self.set_train()

    def scaled_loss(self, image, label):
        loss = self.loss(self.network(image), label)
        return loss if self.scaler is None else self.scaler.scale(loss)

    def construct(self, image, label):
        loss, gradients = self.value_and_gradients(image, label)
        gradients = self.mean_over_workers(gradients)
        if self.scaler is None:
            return ops.depend(loss, self.update(gradients))
        loss, gradients = self.scaler.unscale(loss), self.scaler.unscale(gradients)
        is_finite = amp.all_finite(gradients)
        loss = ops.depend(loss, self.scaler.adjust(is_finite))
        if is_finite:
            loss = ops.depend(loss, self.update(gradients))
        return loss

    def update(self, gradients):
        if self.clip_norm > 0:
            factor = ops.minimum(1.0, self.clip_norm / global_norm(gradients))
            gradients = ops.HyperMap()(ops.partial(_scaled, factor), gradients)
        return self.optimizer(gradients)


def global_norm(tensors):
    """Return the Euclidean norm of all elements of a tuple of Tensors together, float32 ()."""
    return ops.sqrt(ops.addn(ops.HyperMap()(_sum_of_squares, tensors)))


_sum_of_squares = ops.MultitypeFuncGraph("sum_of_squares")
_scaled = ops.MultitypeFuncGraph("scaled")


@_sum_of_squares.register("Tensor")
def _(tensor):
    return ops.square(tensor.astype(mstype.float32)).sum()


@_scaled.register("Tensor", "Tensor")
def _(factor, tensor):
    return tensor * factor
