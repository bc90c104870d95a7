# SPDX-License-Identifier: Apache-2.0
"""scripts/profile_model.py: operators as MindSpore's profiler lists them, their groups, and the floor beside them."""

import re

import pytest
from test_entry_points import refused, run

from src.errors import UserError
from src.measure.operators import Operator, cell_name, group, parse

BLOCK = "Default/network-ResNet/layer1-SequentialCell/0-Bottleneck/"
TIMES = (
    f"{BLOCK}relu-ReLU/ReLU-op0;HostCpuOps;2000,0.25,0 4000,0.35,0 6000,0.1,0 \n"
    f"{BLOCK}conv1-Conv2d/Conv2D-op0;HostCpuOps;1000,2,0 3000,4,0 5000,90,0 \n"
)
SHAPES = 3 * (
    "Conv2D;Conv2D-op0;77;input_1:[2, 3, 4, 4];input_2:[8, 3, 1, 1];\n"
    "ReLU;ReLU-op0;77;input_1:[2, 8, 4, 4];input_2:TupleShape(NoShape);input_3:[];\n"
)


def test_operators_get_their_times_and_inputs():
    """The profiler's two texts are in different orders. Medians: one slow call of a busy machine does not count."""
    operators = parse(TIMES, SHAPES)
    assert operators == [
        Operator(f"{BLOCK}conv1-Conv2d", "Conv2D", 3, 4, 4 * (96 + 24)),
        Operator(f"{BLOCK}relu-ReLU", "ReLU", 3, 0.25, 4 * (256 + 1)),
    ]
    assert group(operators, "operator", runs=3) == [("Conv2D", 1, 4, 480), ("ReLU", 1, 0.25, 1028)]
    twice = [operator._replace(scope="Default/a-Cell") for operator in operators]
    assert group(twice, "cell", runs=3) == [("a", 2, 4.25, 480 + 1028)]
    assert [share.name for share in group(operators, "both", runs=3)] == [
        "Bottleneck.conv1: Conv2D",
        "Bottleneck.relu: ReLU",
    ]


@pytest.mark.parametrize("texts", [("", ""), (TIMES, SHAPES.replace("ReLU", "Add")), (TIMES, SHAPES[:70])])
def test_another_profiler_is_refused(texts):
    """Texts that do not belong together give no figures."""
    with pytest.raises(UserError, match=r"2\.10"):
        parse(*texts)


@pytest.mark.parametrize(
    ("scope", "name"),
    [
        ("Default/network-ResNet/stem-SmallStem/conv-Conv2d", "stem.conv"),
        (f"{BLOCK}conv2-ACmix/attention-Window", "Bottleneck.conv2.attention"),
        ("Default/layer2-SequentialCell/3-Bottleneck/downsample-SequentialCell/0-Conv2d", "Bottleneck.downsample.0"),
        ("Default/network-ResNet", "network"),
        ("Default", "network"),
        (f"Gradients/{BLOCK}bn1-BatchNorm2d/Grad_BatchNorm", "gradient: Add"),
        ("Expand/_MatMulExt", "no Cell: Add"),
    ],
)
def test_cells_are_named_alike_in_all_blocks(scope, name):
    """The same place of each block is one row; gradients are not laid at the door of the first Cell."""
    assert cell_name(Operator(scope, "Add", calls=1, ms=1.0, bytes=4)) == name


def test_profile_of_a_step():
    """A real profile: shares add up, and the floor counts three forward passes of the whole batch."""
    options = "{stem: small, width: 8, depths: [1, 1, 1, 1]}"
    words = ["--options", options, "--image_size", 16, "--runs", 2, "--top", 3, "--phase", "train", "--by", "cell"]
    done = run("scripts/profile_model.py", "resnet26", *words, "--batch_size", 4, "--markdown")
    assert done.returncode == 0, done.stderr
    head, _, *rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("|")]
    shares = [float(row[head.index("share")].rstrip("%")) for row in rows]
    assert len(rows) == 5 and shares[-1] == 100 and sum(shares[:-1]) == pytest.approx(100, abs=0.3)
    assert sum(float(row[head.index("ms")]) for row in rows[:-1]) == pytest.approx(float(rows[-1][2]), abs=0.03)
    run_ms, operators_ms = map(float, re.search(r"run: ([\d.]+) ms .*, ([\d.]+) ms of it", done.stdout).groups())
    assert operators_ms > 0 and run_ms > 0
    # One image takes 2,031,616 in a forward pass.
    assert "0.02 G multiply-adds" in done.stdout


def test_refusals():
    """Mistakes end in one line."""
    assert refused(run("scripts/profile_model.py", "resnet26", "--runs", 0), "--runs")
    assert refused(run("scripts/profile_model.py", "resnet27"), "resnet27", "resnet26")
