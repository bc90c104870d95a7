# SPDX-License-Identifier: Apache-2.0
"""How classes are judged: top-1, top-5, loss, and which class is taken for which."""

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from src.errors import UserError
from src.training.parallel import gather_from_workers, sum_over_workers
from src.training.task import Judge


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


class ClassJudge(Judge):
    """Judges classes by an `EvaluationStep`, or what stands in for one.

    Args:
        step: see there.
        images (numpy.ndarray): a batch of the shape and type that the step is compiled for.
        names (list): of the classes.

    `result` has top1, top5 (float, percent), loss (float, mean cross entropy without smoothing), samples (int).
    """

    def __init__(self, step, images, names):
        self.step, self.images, self.names = step, images, names

    def compile(self):
        self.step.compile(ms.Tensor(self.images), ms.Tensor(np.zeros(len(self.images), np.int32)))

    def begin(self):
        self.sums = np.zeros(4)
        self.confusion = np.zeros((len(self.names),) * 2, np.int64)

    def add(self, image, label):
        samples, size = len(label), len(self.images)
        judged = self.step(_filled_up(image, size), _filled_up(label, size)).asnumpy()[:, :samples]
        self.sums += [*judged[:3].sum(axis=1, dtype=np.float64), samples]
        found = judged[3].astype(int)
        np.add.at(self.confusion, (label.asnumpy(), found), 1)
        return found

    def result(self, world):
        right1, right5, loss, samples = map(float, gather_from_workers(self.sums, world).sum(axis=0))
        if not samples:
            raise UserError("the evaluation saw no image; give a --data_dir with some")
        return {
            "top1": 100 * right1 / samples,
            "top5": 100 * right5 / samples,
            "loss": loss / samples,
            "samples": int(samples),
        }

    def write_per_class(self, path, world):
        confusion = sum_over_workers(self.confusion.astype(np.float32), world).astype(np.int64)
        if world.rank == 0:
            # Loading matplotlib takes a second.
            from src.tasks.per_class import write_per_class

            write_per_class(path, confusion, self.names)


def _filled_up(rows, batch_size):
    # Copies of the last row, in the last batch: another batch size would compile the whole graph again.
    lacking = batch_size - len(rows)
    if lacking == 0:
        return rows
    return ms.Tensor(np.pad(rows.asnumpy(), [(0, lacking)] + [(0, 0)] * (rows.ndim - 1), mode="edge"))
