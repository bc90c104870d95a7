# SPDX-License-Identifier: Apache-2.0
"""Evaluating: a network, or a checkpoint, judged on images each of which counts once."""

import sys
import time

from src.data.dataset import iterate
from src.training.checkpoint import load_weights
from src.training.kernels import kernels_of
from src.training.precision import mixed_precision


def evaluate(judge, dataset, world, should_leave=lambda batches: False):
    """Return what `judge` makes of all workers' shares of a dataset.

    Args:
        judge (Judge): its step is left in evaluation mode.
        dataset (mindspore.dataset.Dataset): this worker's share; the last batch may be short.
        world (World): the workers, each of which has to call this.
        should_leave: asked before each batch, with how many were judged; all workers leave before the same one.

    Returns:
        dict: of `Judge.result`. None where the evaluation was left.

    Raises:
        UserError: an image cannot be read, or there is none.
    """
    judge.step.set_train(False)
    judge.begin()
    for batches, batch in enumerate(iterate(dataset)):
        if should_leave(batches):
            return None
        judge.add(*batch)
    return judge.result(world)


def evaluate_checkpoint(task, checkpoint, world, per_class=None):
    """Evaluate the weights of a file on the evaluation images of a `Task`.

    Args:
        per_class: the .csv file to write the results of each class to; None: none.

    Returns:
        tuple: what `evaluate` returns, and the throughput of all workers in images/s, compiling not counted.

    Raises:
        UserError: the data, the model or the checkpoint cannot be used, or it was trained on other classes.
    """
    device = task.config.device
    with kernels_of(device):
        network = task.build()
        task.open_to_judge(load_weights(network, checkpoint), f"checkpoint {checkpoint}")
        judge = task.judge(mixed_precision(network, device.amp_level, device.amp_dtype))
        return evaluate_timed(task, judge, world, per_class)


def evaluate_timed(task, judge, world, per_class=None):
    """Evaluate the opened `task` as `evaluate` does, and return what `evaluate_checkpoint` does."""
    for note in task.notes if world.rank == 0 else ():
        print(note, file=sys.stderr)
    judge.step.set_train(False)
    judge.compile()
    images = task.batches("val", world)
    started = time.perf_counter()
    compiled_s = judge.compiling_s
    result = evaluate(judge, images, world)
    seconds = time.perf_counter() - started - (judge.compiling_s - compiled_s)
    if per_class:
        judge.write_per_class(per_class, world)
    return result, result["samples"] / seconds
