# SPDX-License-Identifier: Apache-2.0
"""Data sinking: the device takes its batches from a queue of its own, inside the graph of the step."""

import queue
import threading
from contextlib import contextmanager

import mindspore as ms
import mindspore.dataset as ds


@contextmanager
def sunk(step, batches, steps):
    """Let a thread of MindSpore send the batches to the device ahead of the steps that take them.

    Yields `(step, batches)` for the block to use in the place of its own; these batches are empty, and each says that
    one more is in the queue. The images are those of `batches`, epoch by epoch, but to MindSpore, which compiles a step
    for its data set, all epochs are one. Those of the next epoch are made while an evaluation runs.

    Args:
        step (nn.Cell): takes the Tensors of a batch.
        batches: `batches(epoch, done)` yields those of an epoch, which counts from 1, after the first `done`.
        steps (list): how many batches each epoch has.
    """
    sender = _Sender(step, batches, steps)
    try:
        yield sender.step, sender.batches
    finally:
        sender.end()


class _Sender:
    """See `sunk`. The thread iterates over `rows`; the training learns from `sent` what has become of them."""

    def __init__(self, step, batches, steps):
        self._step, self._batches, self._steps = step, batches, steps
        self._sunk_step = self._dataset = None
        self.sent = queue.SimpleQueue()
        self.is_over = threading.Event()

    def step(self):
        """Take a step on the next batch in the queue."""
        return self._sunk_step()

    def batches(self, epoch, done):
        """Yield an empty batch for each of `epoch` after the first `done`, as soon as it is sent."""
        for _ in range(done, self._steps[epoch - 1]):
            if self._sunk_step is None:
                self._begin(epoch, done)
            # The device would wait for ever for a batch that could not be made.
            if error := self.sent.get():
                raise error
            yield ()

    def _begin(self, epoch, done):
        starts = [(epoch, done), *((number, 0) for number in range(epoch + 1, len(self._steps) + 1))]
        rows = (row for start in starts for row in self._batches(*start))
        count = sum(self._steps[epoch - 1 :]) - done
        # Threads, not processes: MindSpore forks for the latter, which a running device does not survive.
        source = _Rows(rows, count, self)
        self._dataset = ds.GeneratorDataset(source, source.columns, python_multiprocessing=False)
        self._sunk_step = ms.data_sink(self._step, self._dataset, sink_size=1, jit_config=ms.JitConfig())

    def end(self):
        """Send no more."""
        self.is_over.set()
        if self._sunk_step is not None:
            # Where `Model.train` finds the sender to end it, too.
            self._dataset.__transfer_dataset__.release()


class _Rows:
    """What MindSpore iterates over: it looks twice at the first row, for types and shapes, and then sends all of them.

    Has a length, as MindSpore would go through the whole training to count the rows.
    """

    def __init__(self, rows, count, sender):
        self._rows, self._count, self._sender = rows, count, sender
        self._first = next(rows)
        self.columns = [str(column) for column in range(len(self._first))]
        sender.sent.put(None)

    def __len__(self):
        return self._count

    def __iter__(self):
        yield self._first
        try:
            for row in self._rows:
                if self._sender.is_over.is_set():
                    return
                self._sender.sent.put(None)
                yield row
        except Exception as error:
            self._sender.sent.put(error)
        # MindSpore begins again where the rows end.
        self._sender.is_over.wait()
