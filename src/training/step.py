# SPDX-License-Identifier: Apache-2.0
"""One training step as one graph: loss, gradients, their mean over the workers, clipping, the update."""

from mindspore import amp, nn, ops

from src.training.flat_copy import FlatCopy


class TrainStep(nn.Cell):
    """Update the parameters once; where the gradients are not finite, change neither them nor the norms' averages.

    Unlike `nn.TrainOneStepCell` it runs the forward pass once also when that holds random operators (stochastic depth).

    Args:
        network (nn.Cell): images to what `loss` takes.
        loss (nn.Cell): that and the rest of the batch to the mean loss, float32 ().
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
        targets (Tensor): what the loss takes besides, each (B, ...): labels, as a rule.

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
        statistics = _statistics(network)
        self.last_statistics = FlatCopy([statistics] if statistics else [], "last_statistics")
        self.split, self.map = ops.Split(0, micro_batches), ops.HyperMap()
        self.mul_no_nan = ops.MulNoNan()  # zero times NaN is zero
        self.value_and_gradients = ops.value_and_grad(self.scaled_loss, None, optimizer.parameters)
        self.workers = world.size
        if self.workers > 1:
            self.sum = ops.AllReduce()
            self.reduce = nn.DistributedGradReducer(optimizer.parameters, mean=True, degree=self.workers)
        self.begin()

    def begin(self):
        """Get ready for a step; to call again where anything but a step has changed the network."""
        self.set_train()
        self.last_statistics.take()
        self.optimizer.begin()
        if self.ema is not None:
            self.ema.begin()

    def scaled_loss(self, image, *targets):
        loss = self.loss(self.network(image), *targets)
        loss = loss / self.micro_batches if self.micro_batches > 1 else loss
        return loss if self.scaler is None else self.scaler.scale(loss)

    def construct(self, image, *targets):
        loss, gradients = self.mean_over_parts(image, *targets)
        loss, gradients = self.mean_over_workers(loss, gradients)
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
        kept = self.keep_statistics(is_finite)
        return ops.depend(loss, self.update(ops.depend(gradients, kept), norm, is_finite)), norm

    def mean_over_parts(self, image, *targets):
        """Return the loss and the gradients of a batch, the mean of those of its parts."""
        if self.micro_batches == 1:
            return self.value_and_gradients(image, *targets)
        columns = [self.split(column) for column in (image, *targets)]
        image, targets = self.part(columns, 0)
        loss, gradients = self.value_and_gradients(image, *targets)
        for number in range(1, self.micro_batches):
            image, targets = self.part(columns, number)
            # Only after the part before it, whose activations are free by then.
            image = ops.depend(image, gradients)
            of_part, more = self.value_and_gradients(image, *targets)
            loss, gradients = loss + of_part, self.map(ops.add, gradients, more)
        return loss, gradients

    def part(self, columns, number):
        """Return the image and the targets of one part of a batch, whose columns are cut."""
        targets = ()
        for column in columns[1:]:
            targets += (column[number],)
        return columns[0][number], targets

    def mean_over_workers(self, loss, gradients):
        """Return the loss and the gradients, the mean of those of all workers."""
        if self.workers == 1:
            return loss, gradients
        return self.sum(loss) / self.workers, self.reduce(gradients)

    def norm(self, gradients):
        """Return the Euclidean norm of all elements of the flat gradients together, float32 ()."""
        sums = ()
        for matrix in gradients:
            sums += (ops.square(matrix).sum(1).sum(),)
        return ops.sqrt(ops.addn(sums))

    def keep_statistics(self, is_finite):
        """Give the batch norms back their last averages where the gradients are not finite."""
        statistics, kept = self.last_statistics, ()
        for now, last in zip(statistics.flattening.flatten(statistics.parameters), statistics.matrices):
            kept += (ops.select(is_finite, now, last),)
        return statistics.assign(kept)

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
