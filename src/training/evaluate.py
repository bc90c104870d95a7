# SPDX-License-Identifier: Apache-2.0
"""Top-1, top-5 and loss over a dataset in which every image counts once."""

import sys
import time

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from src.data.classes import Classes, numbers_of_split
from src.data.dataset import create_dataset, iterate
from src.data.image_folder import list_split
from src.errors import UserError
from src.training.checkpoint import load_weights
from src.training.kernels import kernels_of
from src.training.network import build_network
from src.training.parallel import gather_from_workers, sum_over_workers
from src.training.precision import mixed_precision


class EvaluationStep(nn.Cell):
    """Judge every image of a batch; one instance compiles once and serves every evaluation of its network.

    Args:
        network (nn.Cell): images (B, C, H, W) to float32 logits (B, K).

    Inputs:
        image (Tensor): float32 (B, C, H, W).
        label (Tensor): int32 (B,).

    Outputs:
        Tensor: float32 (4, B): 1 where the best class is right, 1 where one of the min(5, K) best is, cross entropy,
        and the best class.
    """

    def __init__(self, network):
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, image, label):
        logits = self.network(image)
        best = ops.topk(logits, min(5, logits.shape[1]))[1]
        hits = ops.equal(best, label.expand_dims(1)).astype(ms.float32)
        loss = ops.cross_entropy(logits, label, reduction="none")
        return ops.stack((hits[:, 0], hits.sum(axis=1), loss, best[:, 0].astype(ms.float32)))


def evaluate(step, dataset, world, should_leave=lambda batches: False, confusion=None):
    """Return `{"top1", "top5", "loss", "samples"}` over all workers' shares of a dataset.

    Args:
        step (EvaluationStep): its network is left in evaluation mode.
        dataset (mindspore.dataset.Dataset): this worker's share, as `create_dataset` makes it; the last
            batch may be short.
        world (World): the workers, each of which has to call this.
        should_leave: asked before each batch, with how many were judged; all workers leave before the same one.
        confusion (numpy.ndarray): int64 (K, K); adds to each [class, best class] the images of this worker.

    Returns:
        dict: top1, top5 (float, percent), loss (float, mean cross entropy without smoothing), samples (int). None
        where the evaluation was left.

    Raises:
        UserError: an image file cannot be read.
    """
    step.set_train(False)
    batch_size = dataset.get_batch_size()
    sums = np.zeros(4)
    for batches, (image, label) in enumerate(iterate(dataset)):
        if should_leave(batches):
            return None
        samples = len(label)
        judged = step(_filled_up(image, batch_size), _filled_up(label, batch_size)).asnumpy()
        sums += [*judged[:3, :samples].sum(axis=1, dtype=np.float64), samples]
        if confusion is not None:
            np.add.at(confusion, (label.asnumpy(), judged[3, :samples].astype(int)), 1)
    right1, right5, loss, samples = map(float, gather_from_workers(sums, world).sum(axis=0))
    if not samples:
        raise UserError("the evaluation saw no image; give a --data_dir with some")
    return {
        "top1": 100 * right1 / samples,
        "top5": 100 * right5 / samples,
        "loss": loss / samples,
        "samples": int(samples),
    }


def evaluate_checkpoint(config, checkpoint, world, per_class=None):
    """Evaluate the weights of a file on the evaluation images of a `Config`.

    Args:
        per_class: the .csv file to write the results of each class to, see `write_per_class`; None: none.

    Returns:
        tuple: what `evaluate` returns, and the throughput of all workers in images/s, compiling not counted.

    Raises:
        UserError: the data, the model or the checkpoint cannot be used, or it was trained on other classes.
    """
    with kernels_of(config.device):
        model = config.model
        network = build_network(model)
        classes = Classes.recorded(load_weights(network, checkpoint), model.num_classes)
        numbers = numbers_to_judge(classes, config.data, f"checkpoint {checkpoint}", world)
        images = create_dataset(
            config.data, model.size, model.in_channels, "val", world.rank, world.size, numbers=numbers
        )
        step = EvaluationStep(mixed_precision(network, config.device.amp_level, config.device.amp_dtype))
        batch = (config.data.batch_size, model.in_channels, *model.size)
        return evaluate_timed(step, images, np.zeros(batch, np.float32), world, classes, per_class)


def numbers_to_judge(classes, data, whose, world):
    """Return `numbers_of_split` of the evaluation images, and say on rank 0 what one may not expect of them."""
    numbers, notes = numbers_of_split(classes, data, list_split(data, "val"), whose)
    for note in notes if world.rank == 0 else ():
        print(note, file=sys.stderr)
    return numbers


def evaluate_timed(step, dataset, batch, world, classes, per_class=None):
    """Evaluate as `evaluate` does and return what `evaluate_checkpoint` does.

    Args:
        batch (numpy.ndarray): images to compile the step for.
        classes (Classes): of the network.
        per_class: see `evaluate_checkpoint`.
    """
    step.set_train(False)
    step.compile(ms.Tensor(batch), ms.Tensor(np.zeros(len(batch), np.int32)))
    confusion = np.zeros((len(classes.names),) * 2, np.int64) if per_class else None
    started = time.perf_counter()
    result = evaluate(step, dataset, world, confusion=confusion)
    seconds = time.perf_counter() - started
    if per_class:
        confusion = sum_over_workers(confusion.astype(np.float32), world).astype(np.int64)
        if world.rank == 0:
            # Loading matplotlib takes a second.
            from src.training.per_class import write_per_class

            write_per_class(per_class, confusion, classes.names)
    return result, result["samples"] / seconds


def _filled_up(rows, batch_size):
    # Copies of the last row, in the last batch: another batch size would compile the whole graph again.
    lacking = batch_size - len(rows)
    if lacking == 0:
        return rows
    return ms.Tensor(np.pad(rows.asnumpy(), [(0, lacking)] + [(0, 0)] * (rows.ndim - 1), mode="edge"))
