# SPDX-License-Identifier: Apache-2.0
"""Segmenters and detectors are trained as classifiers are: stopped anywhere, they go on as if nothing had been."""

import os
import signal
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from same_run import after
from scene_training import scene_config
from tiny_training import changed

from src.device import World
from src.tasks import create_task
from src.training import trainer
from src.training.checkpoint import read_checkpoint
from src.training.metrics import read_metrics

OTHERS = {"fpn": {}, "retinanet": {"amp_level": "O2", "loss_scale": 0.0}}


@pytest.mark.parametrize("head", OTHERS)
def test_a_stopped_run_goes_on_exactly(head, scenes, tmp_path, tiny_model, monkeypatch):
    """Protects weights, averages, moments, chance, order of images, learning rate and loss scale, bit for bit.

    A run goes on from the files that one leaves that was killed inside of an epoch; it is stopped by SIGTERM inside of
    the next one. A detector's gradients are of 16 bits.
    """
    ms.set_context(mode=ms.GRAPH_MODE)
    whole = changed(
        scene_config(head, scenes, tmp_path, "tiny_backbone", "{}"),
        train={"save_steps": 1, "keep_checkpoints": 6, "eval_epochs": 2},
        device=OTHERS[head],
    )
    task = create_task(whole)
    result = trainer.train(task, World())
    assert (result["samples"], result["step"]) == (3, 8) and result["best"] >= result[task.best] >= 0
    kept = {read_checkpoint(path)[1]["step"]: path for path in Path(whole.output_dir).glob("last*.ckpt")}
    again = changed(whole, output_dir=str(tmp_path / "again"))
    after(4, lambda: os.kill(os.getpid(), signal.SIGTERM), monkeypatch)
    stopped = trainer.train(create_task(again), World(), resume=str(kept[3]))
    assert stopped["is_stopped"] and (stopped["epoch"], stopped["step"]) == (1, 7)
    (expected, said), (got, said_again) = map(read_checkpoint, (kept[7], f"{again.output_dir}/last.ckpt"))
    assert {name.split(".")[0] for name in expected} >= {"head", "ema", "optimizer"}
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name].asnumpy(), value.asnumpy(), err_msg=name)
    for key in ("draws", "lr", "loss_scaler", "classes"):
        assert said_again[key] == said[key]
    assert said["draws"] and (head == "fpn") == (said["loss_scaler"] is None)
    lines = read_metrics(f"{whole.output_dir}/metrics.jsonl")
    assert [line["kind"] for line in lines] == ["train", "train"] * 2 + ["eval", "ema"]
    assert all(np.isfinite(line["loss"]) for line in lines if line["kind"] == "train")
    rates = {line["step"]: line["lr"] for line in lines if "lr" in line}
    others = {line["step"]: line["lr"] for line in read_metrics(f"{again.output_dir}/metrics.jsonl") if "lr" in line}
    assert others == {step: rates[step] for step in others} != {}
