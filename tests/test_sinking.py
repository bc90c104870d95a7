# SPDX-License-Identifier: Apache-2.0
"""Data sinking is the same run, bit for bit, whatever happens to it.

No CPU sinks: what stands in for `mindspore.data_sink` does on CPU as its documentation and code say.
A thread of MindSpore goes through the data set, over and over, and each call takes a step on the next batch.
"""

import time

import mindspore as ms
import numpy as np
import pytest
from same_run import assert_same_run
from tiny_training import changed

from src.device import World
from src.errors import UserError
from src.tasks import create_task
from src.tasks.classification import Classification
from src.training import monitor, trainer
from src.training.metrics import read_metrics
from src.training.sinking import _Rows, sunk


@pytest.fixture
def config(thorough, monkeypatch):
    """The training of `whole`, sunk into a device that is a stand-in."""
    monkeypatch.setattr(ms, "data_sink", data_sink)
    monkeypatch.setattr(monitor, "peak_memory_gb", lambda target: 0.0)
    return changed(thorough, train={"data_sink": True}, device={"target": "GPU"})


def data_sink(fn, dataset, sink_size, jit_config):
    assert sink_size == 1 and isinstance(jit_config, ms.JitConfig)
    # All that MindSpore asks the data set before it sends.
    assert dataset.get_dataset_size() > 0
    assert dataset.output_shapes() == [[4, 1, 8, 8], [4, 3]] and len(dataset.output_types()) == 2
    dataset.__transfer_dataset__ = batches = dataset.create_tuple_iterator(num_epochs=-1)

    # It compiles a function around the step, in which the batch is taken from the queue.
    @ms.jit
    def take(image, label):
        return fn(image, label)

    return lambda: take(*next(batches))


@pytest.fixture
def made(monkeypatch):
    """The epochs whose images were made, in this order; 0 is a look at how many there are."""
    batches, epochs = Classification.batches, []

    def noted(task, split, world, epoch=0):
        if split == "train":
            epochs.append(epoch)
        return batches(task, split, world, epoch)

    monkeypatch.setattr(Classification, "batches", noted)
    return epochs


def test_a_sunk_run_is_the_same(config, whole, made, monkeypatch):
    """Protects images, weights and reports; each epoch is made once, beforehand, and none after the last."""
    evaluate, ahead = trainer.evaluate, []

    def evaluate_later(*words):
        deadline = time.monotonic() + 10
        while made[-1] == len(ahead) // 2 + 1 < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        ahead.append(made[-1])
        return evaluate(*words)

    monkeypatch.setattr(trainer, "evaluate", evaluate_later)
    trainer.train(create_task(config), World())
    assert_same_run(whole, config)
    assert ahead == [2, 2, 3, 3, 4, 4, 4, 4] and made == [0, 1, 2, 3, 4]


def test_an_error_of_the_sender_ends_the_run(config, whole, made, monkeypatch):
    """Protects from waiting for ever on a batch that cannot be made: its error is the run's, which goes on exactly.

    It is found ahead of the steps that are still to take; these are taken.
    """
    iterate = trainer.iterate

    def until_a_damaged_image(dataset):
        for number, batch in enumerate(iterate(dataset)):
            if (made[-1], number) == (3, 3):
                raise UserError("image x.png is empty")
            yield batch

    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"^image x\.png is empty$"):
        patch.setattr(trainer, "iterate", until_a_damaged_image)
        trainer.train(create_task(config), World())
    train = [line["step"] for line in read_metrics(f"{config.output_dir}/metrics.jsonl") if line["kind"] == "train"]
    assert train[-1] == 2 * 6 + 2
    made.clear()
    trainer.train(create_task(config), World(), resume="auto")
    assert made == [0, 3, 4]
    assert_same_run(whole, config)


def test_sending(monkeypatch):
    """Protects the device from a wait of its own, and from batches after the last.

    A batch is waited for, and that is reported, before the step that takes it; MindSpore's sender, which on CPU throws
    batches away, does not begin again at the end, as it does with any other data set, and ends.
    """
    begin, begun, steps = _Rows.__iter__, [], []

    def noted(rows):
        begun.append(rows)
        return begin(rows)

    def send(fn, dataset, sink_size, jit_config):
        dataset.__transfer_dataset__ = dataset.device_que(send_epoch_end=False)
        dataset.__transfer_dataset__.send(-1)
        return lambda: steps.append(time.perf_counter())

    def slow(epoch, done):
        for number in range([3, 2][epoch - 1]):
            time.sleep(0.2)
            yield ms.Tensor(np.full((4, 2), number, np.float32)), ms.Tensor(np.zeros(4, np.float32))

    monkeypatch.setattr(_Rows, "__iter__", noted)
    monkeypatch.setattr(ms, "data_sink", send)
    with sunk(None, slow, steps=[3, 2]) as (step, batches):
        for epoch in (1, 2):
            for batch in batches(epoch, 0):
                step(*batch)
        time.sleep(0.3)
    time.sleep(0.3)
    # MindSpore looks whether it can iterate, and sends.
    assert len(begun) == 2 and len(steps) == 5
    assert steps[-1] - steps[0] > 0.2 * 3


def test_sinking_on_cpu_is_refused(config):
    """Protects from MindSpore's refusal after minutes: one line, before anything is written."""
    with pytest.raises(UserError, match=r"train\.data_sink takes an Ascend or GPU but device\.target is CPU"):
        trainer.train(create_task(changed(config, device={"target": "CPU"})), World())
