# SPDX-License-Identifier: Apache-2.0
"""The figures of what a network learned: they show what is there, and name what cannot be drawn."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from shell import ROOT

from src.errors import UserError
from src.figures.attended import attended
from src.figures.attention import plot_attention
from src.figures.paths import plot_paths
from src.figures.runs import plot_runs
from src.figures.shifts import plot_shifts
from src.models import create_model
from src.training.checkpoint import save_weights

NETWORKS = {
    "acmix_resnet26": {"stem": "small", "width": 8, "depths": (1, 1, 1, 1)},
    "acmix_swin_tiny": {"width": 8, "depths": (1, 1, 2, 1), "heads": 2, "window": 4, "patch": 2},
    "acmix_pvt_tiny": {"width": 8, "depths": (1, 1, 1, 1)},
    "acmix_san10": {"stem": "small", "width": 32, "depths": (1, 1, 1, 1, 1)},
}


@pytest.fixture(scope="module")
def resnet():
    return create_model("acmix_resnet26", num_classes=3, image_size=32, in_channels=1, **NETWORKS["acmix_resnet26"])


@pytest.fixture
def image():
    return np.random.default_rng(0).standard_normal((1, 32, 32)).astype(np.float32)


def is_picture(png):
    picture = cv2.imread(str(png))
    return picture is not None and picture.std() > 5


@pytest.mark.parametrize("name", NETWORKS)
def test_weights_lie_where_the_form_looks(name, image):
    """Protects the maps: whole softmaxes, inside the window of the form, around the query where it slides."""
    network = create_model(name, num_classes=3, image_size=32, in_channels=1, **NETWORKS[name])
    results = attended(network, image, (0.4, 0.7))
    assert len(results) == sum(NETWORKS[name]["depths"])
    for result in results:
        seen = np.abs(result.weights).max(0) > 0
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        if "resnet" in name or "swin" in name:
            np.testing.assert_allclose(result.weights.sum((1, 2)), 1, rtol=1e-5)
            # The query sees itself, and at most its window.
            y, x = (pixel * size // grid for pixel, size, grid in zip(result.query, seen.shape, result.grid))
            assert seen[y, x]
            side = 7 if "resnet" in name else 4
            assert np.ptp(rows) < side and np.ptp(columns) < side
        elif "pvt" in name:
            assert seen.all()
        else:
            assert np.ptp(rows) < 7 and np.ptp(columns) < 7


def test_weights_are_those_of_the_output(resnet, image):
    """Protects the claim that the gradient is the row of weights: with them the values give the attention's output."""
    attention = resnet.layer1[0].conv2.attention
    seen = {}

    def remember(cell, inputs, output):
        seen["qkv"], seen["out"] = inputs[0].asnumpy()[0], output.asnumpy()[0]

    handle = attention.register_forward_hook(remember)
    result = attended(resnet, image, (0.4, 0.7))[0]
    handle.remove()
    channels, d = attention.channels, attention.head_channels
    values = seen["qkv"][2 * channels :].reshape(-1, d, *result.weights.shape[1:])
    expected = np.einsum("nhw,ndhw->nd", result.weights, values).reshape(-1)
    y, x = result.query
    np.testing.assert_allclose(seen["out"][:, y, x], expected, rtol=1e-4, atol=1e-6)


def test_attention_figure(resnet, image, tmp_path):
    """Protects the picture, and the error for a layer or a network without attention."""
    spec = {"mean": [0.5], "std": [0.25]}
    plot_attention(resnet, image, spec, (0.5, 0.5), tmp_path / "a.png", ["layer1.0.conv2"])
    assert is_picture(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"layer other has no attention; it is one of layer1.0.conv2"):
        plot_attention(resnet, image, spec, (0.5, 0.5), tmp_path / "b.png", ["other"])
    plain = create_model("resnet26", num_classes=3, stem="small", width=8, depths=(1, 1, 1, 1))
    with pytest.raises(UserError, match="no attention to show"):
        attended(plain, image, (0.5, 0.5))
    assert not (tmp_path / "b.png").exists()


def write_run(folder, alpha=(0.5, 0.7), kinds=("train", "eval", "paths")):
    folder.mkdir()
    layers = ["layer1.0.conv2", "layer2.0.conv2"][: len(alpha)]
    lines = []
    for epoch in (1, 2):
        at = {"epoch": epoch, "step": 10 * epoch}
        lines += [
            {"kind": "train", **at, "loss": 2 / epoch},
            {"kind": "eval", **at, "loss": 1.5 / epoch, "top1": 40.0 * epoch},
            {
                "kind": "paths",
                **at,
                "alpha": dict(zip(layers, alpha)),
                "beta": dict.fromkeys(layers[: len(alpha)], 0.5),
            },
        ]
    lines = [json.dumps(line) for line in lines if line["kind"] in kinds]
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    return folder / "metrics.jsonl"


def test_figures_of_runs(tmp_path):
    """Protects the figures of one and of several runs, a weight of zero included, and their errors."""
    runs = {"a": write_run(tmp_path / "a"), "b": write_run(tmp_path / "b", (0.0, 0.4))}
    plot_paths({"a": runs["a"]}, tmp_path / "one.png")
    plot_paths(runs, tmp_path / "two.png")
    plot_runs(runs, tmp_path / "runs.png")
    assert all(is_picture(tmp_path / name) for name in ("one.png", "two.png", "runs.png"))
    begun = write_run(tmp_path / "begun", kinds=("train",))
    with pytest.raises(UserError, match=r"begun/metrics.jsonl tells of no alpha and beta"):
        plot_paths({"begun": begun}, tmp_path / "x.png")
    with pytest.raises(UserError, match=r"begun/metrics.jsonl has no evaluation yet"):
        plot_runs({"begun": begun}, tmp_path / "x.png")
    with pytest.raises(UserError, match="different layers"):
        plot_paths({"a": runs["a"], "short": write_run(tmp_path / "short", (0.5,))}, tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


def test_shift_figure(resnet, tmp_path):
    """Protects the kernels' figure, and the errors for a layer or a checkpoint without them."""
    save_weights(tmp_path / "acmix.ckpt", resnet, {})
    plot_shifts(tmp_path / "acmix.ckpt", tmp_path / "a.png")
    assert is_picture(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"layer other has no shift kernels; it is one of layer1.0.conv2"):
        plot_shifts(tmp_path / "acmix.ckpt", tmp_path / "b.png", ["other"])
    plain = create_model("resnet26", num_classes=3, stem="small", width=8, depths=(1, 1, 1, 1))
    save_weights(tmp_path / "plain.ckpt", plain, {})
    with pytest.raises(UserError, match=r"plain.ckpt has no shift kernels"):
        plot_shifts(tmp_path / "plain.ckpt", tmp_path / "b.png")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["paths", "nowhere"], "there is no nowhere/metrics.jsonl"),
        (["paths", "x", "--output", "a.pdf"], "--output a.pdf takes a name that ends in .png"),
        (
            ["attention", "--checkpoint", "c.ckpt", "--image", "i.png", "--query", "2,0"],
            "--query 2,0 takes two numbers",
        ),
    ],
)
def test_mistakes_end_in_one_line(words, message, tmp_path):
    """Protects the command line: exit code 2 and a line that names the mistake."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "visualize.py", *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.startswith("error: ") and message in done.stderr
