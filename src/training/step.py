# SPDX-License-Identifier: Apache-2.0
"""One training step as one graph: loss, gradients, their mean over the workers, clipping, the update."""

from mindspore import ParameterTuple, amp, nn, ops
from mindspore import dtype as mstype


class TrainStep(nn.Cell):
    """Update the parameters once; where the gradients are not finite, change neither them nor the norms' averages.

    Unlike `nn.TrainOneStepCell` it runs the forward pass once also when that holds random operators (stochastic depth).

    Args:
        network (nn.Cell): images to float32 logits.
        loss (nn.Cell): logits and labels to the mean loss.
        optimizer (nn.Optimizer): takes the gradients of its `parameters`.
        world (World): with more than one worker the gradients are averaged over them, once a step.
        scaler (mindspore.amp.LossScaler, None): scales the loss and its gradients back, see `create_scaler`.
        clip_norm (float): gradients whose norm, over all parameters together, is above this are shrunk to it (Pascanu
            et al., arXiv 1211.5063); 0 leaves them alone.
        micro_batches (int): the batch goes through the network in so many equal parts, one after another; the memory is
            that of one part, the gradient the mean of all. Batch norms see one part at a time.
        ema (Ema, None): follows the weights after each update.

    Inputs:
        image (Tensor): float32 (B, C, H, W).
        label (Tensor): int32 (B,), or float32 (B, K), the probability of each class.

    Outputs:
        tuple: the mean loss of all workers before the update, and the norm of the gradients over all workers and
        parameters, unscaled and before clipping; float32 () both. The norm is not finite where nothing was updated.
    """

    def __init__(self, network, loss, optimizer, world, scaler=None, clip_norm=0.0, micro_batches=1, ema=None):
        super().__init__(auto_prefix=False)
        self.network = network
        self.network.set_grad()
        self.loss = loss
        self.optimizer = optimizer
        self.scaler = scaler
        self.clip_norm = clip_norm
        self.micro_batches = micro_batches
        self.ema = ema
        self.parameters = optimizer.parameters
        self.statistics = ParameterTuple(_statistics(network))
        self.value_and_gradients = ops.value_and_grad(self.scaled_loss, None, optimizer.parameters)
        self.mean_over_workers = (
            nn.DistributedGradReducer(optimizer.parameters, mean=True, degree=world.size)
            if world.size > 1
            else nn.Identity()
        )
        self.workers = world.size
        self.sum_over_workers = ops.AllReduce() if world.size > 1 else nn.Identity()
        self.set_train()

    def scaled_loss(self, image, label):
        loss = self.loss(self.network(image), label) / self.micro_batches
        return loss if self.scaler is None else self.scaler.scale(loss)

    def construct(self, image, label):
        before = ops.HyperMap()(_copy, self.statistics)
        loss, gradients = self.mean_over_parts(image, label)
        loss, gradients = self.sum_over_workers(loss) / self.workers, self.mean_over_workers(gradients)
        if self.scaler is None:
            norm = global_norm(gradients)
            is_finite = ops.isfinite(norm)
        else:
            loss, gradients = self.scaler.unscale(loss), self.scaler.unscale(gradients)
            norm = global_norm(gradients)
            is_finite = amp.all_finite(gradients)
            loss = ops.depend(loss, self.scaler.adjust(is_finite))
        if is_finite:
            loss = ops.depend(loss, self.update(gradients, norm))
        else:
            loss = ops.depend(loss, ops.HyperMap()(ops.assign, self.statistics, before))
        return loss, norm

    def mean_over_parts(self, image, label):
        """Return the loss and the gradients of a batch, the mean of those of its parts."""
        if self.micro_batches == 1:
            return self.value_and_gradients(image, label)
        images = image.reshape(self.micro_batches, -1, *image.shape[1:])
        labels = label.reshape(self.micro_batches, -1, *label.shape[1:])
        # Part, loss and gradients in one tuple: the graph takes one of tensors all alike for a sequence of any length.
        zeros = ops.HyperMap()(ops.zeros_like, self.parameters)
        sums = (ops.zeros((), mstype.int32), ops.zeros((), mstype.float32), *zeros)
        # A loop of the graph: it compiles its body once and keeps the activations of one part at a time.
        while sums[0] < self.micro_batches:
            part = sums[0]
            loss, gradients = self.value_and_gradients(ops.gather(images, part, 0), ops.gather(labels, part, 0))
            sums = ops.HyperMap()(ops.add, sums, (1, loss, *gradients))
        return sums[1], sums[2:]

    def update(self, gradients, norm):
        if self.clip_norm > 0:
            gradients = ops.HyperMap()(ops.partial(_scaled, ops.minimum(1.0, self.clip_norm / norm)), gradients)
        done = self.optimizer(gradients)
        if self.ema is not None:
            done = self.ema(ops.depend(self.optimizer.global_step, done))
        return done


def _statistics(network):
    """The moving averages of the batch norms, which a forward pass in training changes."""
    norms = [cell for _, cell in network.cells_and_names() if isinstance(cell, nn.BatchNorm2d)]
    return [average for norm in norms for average in (norm.moving_mean, norm.moving_variance)]


def global_norm(tensors):
    """Return the Euclidean norm of all elements of a tuple of Tensors together, float32 ()."""
    return ops.sqrt(ops.addn(ops.HyperMap()(_sum_of_squares, tensors)))


_copy = ops.MultitypeFuncGraph("copy")
_sum_of_squares = ops.MultitypeFuncGraph("sum_of_squares")
_scaled = ops.MultitypeFuncGraph("scaled")


@_copy.register("Tensor")
def _(tensor):
    return ops.deepcopy(tensor)


@_sum_of_squares.register("Tensor")
def _(tensor):
    squares = ops.square(tensor.astype(mstype.float32))
    # Row by row: on CPU ten times as fast as a sum over all axes at once.
    return squares.sum() if tensor.ndim < 2 else squares.reshape(tensor.shape[0], -1).sum(1).sum()


@_scaled.register("Tensor", "Tensor")
def _(factor, tensor):
    return tensor * factor
