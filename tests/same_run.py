# SPDX-License-Identifier: Apache-2.0
"""A training with all that a resume has to bring back, disturbed at a step, and compared with one in one go."""

import numpy as np
import pytest
from tiny_training import changed

from src.training.checkpoint import read_checkpoint
from src.training.metrics import read_metrics
from src.training.monitor import Monitor

TIMES = {"images_per_s": None, "data_wait": None, "memory_gb": None}


def with_all(config):
    """Saves after 2 and 4 of the 6 steps of an epoch too, averages, and has chance in its graph and its images.

    Of the latter one kind draws from Python's own generator, another in the order of the batches.
    """
    return changed(
        config,
        model={"drop_path_rate": 0.3},
        data={"random_erasing": 0.5, "mixup": 0.2},
        train={"save_steps": 2},
        optimizer={"ema_decay": 0.9},
    )


def weights_of(path):
    parameters, _ = read_checkpoint(path)
    return {name: parameter.asnumpy() for name, parameter in parameters.items()}


def assert_same_run(config, other):
    """Both ended alike: every tensor of last.ckpt bit for bit, and the metrics but for times."""
    expected, got = (weights_of(f"{c.output_dir}/last.ckpt") for c in (config, other))
    kinds = {"conv.weight", "norm.moving_mean", "ema.fc.bias", "optimizer.global_step", "optimizer.moments.fc.bias"}
    assert kinds <= {*expected} and not np.array_equal(expected["ema.fc.bias"], expected["fc.bias"])
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    lines, others = (read_metrics(f"{c.output_dir}/metrics.jsonl") for c in (config, other))
    assert len(lines) == len(others) == 4 * (3 + 2)
    for line, again in zip(lines, others):
        # A reported number may differ in its last bit: MindSpore tries thread counts as it runs.
        near = {key: pytest.approx(line[key], rel=1e-5) for key in ("loss", "gradient_norm") if key in line}
        assert {**again, **TIMES} == {**line, **TIMES, **near}


def after(step, action, monkeypatch):
    """Let `action` happen when `step` steps have been taken."""
    after_step, seen = Monitor.after_step, []

    def counted(monitor, *results):
        after_step(monitor, *results)
        seen.append(results)
        if len(seen) == step:
            action()

    monkeypatch.setattr(Monitor, "after_step", counted)


def interrupt():
    raise KeyboardInterrupt
