# SPDX-License-Identifier: Apache-2.0
"""One training step as one graph: loss, gradients, their mean over the workers, clipping, the update."""

import numpy as np
from mindspore import ParameterTuple, Tensor, amp, nn, ops
from mindspore import dtype as mstype

from src.training.flattening import Flattening
from src.training.read import Read

_assign = ops.MultitypeFuncGraph("assign")


@_assign.register("Tensor", "Tensor")
def _(parameter, value):
    return ops.assign(parameter, value)


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
        self.flattening = Flattening([self.statistics] if self.statistics else [])
        self.zeros = tuple(Tensor(np.zeros(average.shape, np.float32)) for average in self.statistics)
        self.read, self.map = Read(), ops.HyperMap()
        self.mul_no_nan = ops.MulNoNan()  # zero times NaN is zero
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
        before = self.flattening.flatten(self.statistics)
        loss, gradients = self.mean_over_parts(ops.depend(image, before), label)
        loss, gradients = self.sum_over_workers(loss) / self.workers, self.mean_over_workers(gradients)
        gradients = self.optimizer.flattening.flatten(gradients)
        if self.scaler is None:
            norm = self.norm(gradients)
            is_finite = ops.isfinite(norm)
        else:
            loss = self.scaler.unscale(loss)
            gradients = self.scaler.unscale(gradients)
            norm = self.norm(gradients)
            # Finite only if all gradients are; and of the Ascend 910A, whose numbers do not overflow, this asks a flag.
            is_finite = amp.all_finite((norm,))
            loss = ops.depend(loss, self.scaler.adjust(is_finite))
        kept = self.keep_statistics(before, is_finite)
        return ops.depend(loss, self.update(ops.depend(gradients, kept), norm, is_finite)), norm

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

    def norm(self, gradients):
        """Return the Euclidean norm of all elements of the flat gradients together, float32 ()."""
        sums = ()
        for matrix in gradients:
            sums += (ops.square(matrix).sum(1).sum(),)
        return ops.sqrt(ops.addn(sums))

    def keep_statistics(self, before, is_finite):
        """Give the batch norms back the averages of `before` where the gradients are not finite."""
        now, kept = self.flattening.flatten(self.read(self.statistics, self.zeros)), ()
        for new, old in zip(now, before):
            kept += (ops.select(is_finite, new, old),)
        return self.map(_assign, self.statistics, self.flattening.vectors(kept))

    def update(self, gradients, norm, is_finite):
        """Clip the flat gradients and move the parameters along them; without a branch, see `FlatOptimizer`."""
        factor = ops.minimum(1.0, self.clip_norm / norm) if self.clip_norm > 0 else ops.ones_like(norm)
        factor, scaled = ops.select(is_finite, factor, ops.zeros_like(norm)), ()
        for matrix in gradients:
            scaled += (self.mul_no_nan(matrix, factor),)
        done = self.optimizer(scaled, is_finite)
        if self.ema is not None:
            done = self.ema(ops.depend(self.optimizer.global_step, done), is_finite)
        return done


def _statistics(network):
    """The moving averages of the batch norms, which a forward pass in training changes."""
    norms = [cell for _, cell in network.cells_and_names() if isinstance(cell, nn.BatchNorm2d)]
    return [average for norm in norms for average in (norm.moving_mean, norm.moving_variance)]
