# SPDX-License-Identifier: Apache-2.0
"""scripts/benchmark.py: what it refuses, the lines it writes, and the comparison of two such files."""

import copy

import pytest
from test_entry_points import refused, run

from src.errors import UserError
from src.measure.comparison import compare
from src.measure.machine import machine, machine_text
from src.measure.records import append_record, read_records
from src.measure.setting import parse_image_size, parse_sweep
from src.measure.turns import per_image

TINY = "{stem: small, width: 8, depths: [1, 1, 1, 1]}"
FIGURES = {"ms_per_image": 10.0, "ms_per_image_q1": 9.0, "ms_per_image_q3": 12.0, "compile_s": 5.0, "peak_gb": 2.0}
RECORD = {
    "model": "acmix_resnet50",
    "options": {},
    "batch_size": 8,
    "image_size": [224, 224],
    "amp_level": "O0",
    "amp_dtype": "float16",
    "device_target": "CPU",
    "form": "network",
    "parameters": 1,
    "multiply_adds": 1,
    "forward": FIGURES,
    "machine": {"cpu": "Xeon", "cores": 2, "mindspore": "2.10.0"},
}


def benchmark(*words):
    return run("scripts/benchmark.py", *words)


def written(path, *records):
    for record in records:
        append_record(path, record)
    return path


def changed(**changes):
    record = copy.deepcopy(RECORD)
    for name, value in changes.items():
        if isinstance(record[name], dict):
            record[name] |= value
        else:
            record[name] = value
    return record


def rows_of(done):
    """Head and rows of a Markdown table."""
    assert done.returncode == 0, done.stderr
    head, _, *rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("|")]
    return head, rows


def test_sweep(tmp_path):
    """A real measurement at two sizes, one no square: the rows, the JSON lines and the picture."""
    lines, picture = tmp_path / "runs.jsonl", tmp_path / "growth.png"
    words = ["--options", TINY, "--batch_size", 1, "--phase", "forward", "--rounds", 1, "--runs", 3, "--markdown"]
    done = benchmark("resnet26", *words, "--sweep", "image_size=16,8x24", "--json", lines, "--plot", picture)
    head, rows = rows_of(done)
    assert [row[head.index("image")] for row in rows] == ["16 x 16", "8 x 24"]
    records = read_records(lines)
    assert [record["image_size"] for record in records] == [[16, 16], [8, 24]]
    square, other = records
    assert square["parameters"] == other["parameters"]
    assert square["multiply_adds"] > other["multiply_adds"] > 0  # 256 pixels against 192
    for record in records:
        figures = record["forward"]
        assert figures["ms_per_image_q1"] <= figures["ms_per_image"] <= figures["ms_per_image_q3"]
        assert figures["peak_gb"] > 0.05 and figures["compile_s"] > 0 and "train" not in record
        assert {"cpu", "cores", "load_average", "mindspore", "numpy", "python"} <= set(record["machine"])
    assert picture.read_bytes().startswith(b"\x89PNG")


ACMIX = "acmix_resnet26"


def test_against_another_model(tmp_path):
    """The training steps of two models side by side, one in both forms: ratios are to the one named by --against."""
    lines = tmp_path / "runs.jsonl"
    words = ["--options", TINY, "--batch_size", 2, "--image_size", 8, "--phase", "train", "--rounds", 1, "--runs", 1]
    head, rows = rows_of(
        benchmark(ACMIX, "--against", "resnet26", "--kernels", "both", *words, "--json", lines, "--markdown")
    )
    assert [row[0] for row in rows] == ["resnet26", f"{ACMIX}, portable", ACMIX]
    records = read_records(lines)
    assert [record["form"] for record in records] == ["network", "portable", "network"]
    base, _, other = (record["train"] for record in records)
    places = [place for place, name in enumerate(head) if name == "ratio"]
    assert [rows[0][place] for place in places] == ["1.00x"] * 3
    expected = [f"{other[name] / base[name]:.2f}x" for name in ("ms_per_image", "peak_gb", "compile_s")]
    assert [rows[2][place] for place in places] == expected


def test_exported_files(tmp_path):
    """Files in onnxruntime: that of --against as deployed, the other in both forms, without MindSpore's memory."""
    lines = tmp_path / "runs.jsonl"
    words = ["--options", TINY, "--batch_size", 2, "--image_size", 8, "--rounds", 1, "--runs", 1, "--json", lines]
    done = benchmark("resnet38", "--against", "resnet26", "--runtime", "onnxruntime", *words, "--markdown")
    head, rows = rows_of(done)
    assert [row[0] for row in rows] == ["resnet26, ONNX, folded", "resnet38, ONNX, unfolded", "resnet38, ONNX, folded"]
    assert rows[0][head.index("ratio")] == "1.00x"
    for record in read_records(lines):
        assert 0 < record["forward"]["peak_gb"] < 0.25 and "train" not in record


def test_files_of_several_results():
    """Protects detectors, whose files give boxes, scores and labels."""
    words = ["--options", "{width: 8, depths: [1, 1, 1, 1]}", "--batch_size", 1, "--image_size", 32]
    done = benchmark("retinanet_resnet26", "--runtime", "onnxruntime", *words, "--rounds", 1, "--runs", 1, "--markdown")
    rows = rows_of(done)[1]
    assert [row[0] for row in rows] == ["retinanet_resnet26, ONNX, unfolded", "retinanet_resnet26, ONNX, folded"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "--compare"),
        (["resnet26", "--runs", "0"], "--runs"),
        (["resnet26", "--phase", "backward"], "backward"),
        (["resnet26", "--batch_size", "-1"], "--batch_size"),
        (["resnet26", "--image_size", "224x"], "224x"),
        (["resnet26", "--options", "stem"], "--options"),
        (["resnet26", "--options", "{image_size: 64}"], "image_size"),
        (["resnet26", "--sweep", "width=1,2"], "width=1,2"),
        (["resnet26", "--sweep", "image_size=32,32"], "twice"),
        (["resnet26", "--plot", "growth.png"], "--sweep"),
        (["resnet26", "--json", "nowhere/runs.jsonl"], "nowhere"),
        (["resnet26", "--json", "README.md"], "README.md, line 1"),
        (["resnet26", "--compare", "a", "b"], "--compare"),
        (["resnet26", "--runtime", "onnxruntime", "--phase", "train"], "--phase forward"),
        (["resnet26", "--runtime", "onnxruntime", "--amp_level", "O2"], "--amp_level O0"),
        (["--compare", "nothing.jsonl", "b"], "nothing.jsonl"),
    ],
)
def test_refusals(words, named):
    """Mistakes end in one line, before a model is built."""
    assert refused(benchmark(*words), named)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["resnet27"], ["resnet27", "resnet26"]),
        (["pvt_tiny", "--image_size", "16x64"], ["pvt_tiny", "16 x 64"]),
    ],
)
def test_what_a_model_refuses(words, named):
    """The model's own reason comes through from its process, in one line."""
    assert refused(benchmark(*words), *named)


def test_records_come_back(tmp_path):
    """What is appended is read, in order, also when the file was there."""
    path = tmp_path / "runs.jsonl"
    records = [changed(), changed(batch_size=4)]
    for record in records:
        append_record(path, record)
    assert read_records(path) == records


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-1],  # a whole object, but another run's line would be glued to it
        lambda text: text[: len(text) * 3 // 4],
        lambda text: text + "\n",
        lambda text: text + '{"model": "resnet50"}\n',
        lambda text: text + text.replace("9.0", "null", 1),
    ],
)
def test_a_damaged_file(tmp_path, damage):
    """A file that was cut, or that holds something else, is named with its line, not half read."""
    path = written(tmp_path / "runs.jsonl", changed(), changed())
    path.write_text(damage(path.read_text()))
    with pytest.raises(UserError, match=r"runs.jsonl, line [23]"):
        read_records(path)


def test_compare(tmp_path):
    """B / A of each figure both have, the last line of a setting counting; on the command line as a table."""
    a = written(tmp_path / "a.jsonl", changed(forward={"ms_per_image": 99.0}), changed(), changed(batch_size=4))
    b = written(tmp_path / "b.jsonl", changed(forward={"ms_per_image": 5.0, "peak_gb": 3.0}) | {"train": FIGURES})
    rows, warnings = compare(a, b)
    assert [(row[3], *row[4:]) for row in rows] == [
        ("forward ms/img", "10.00", "5.00", "0.50"),
        ("forward GB", "2.00", "3.00", "1.50"),
        ("forward compile s", "5.0", "5.0", "1.00"),
    ]
    assert warnings == [f"only in A ({a}): acmix_resnet50, batch 4, 224 x 224, float32"]
    done = benchmark("--compare", a, b)
    assert done.returncode == 0 and "0.50" in done.stdout
    assert done.stderr == f"warning: {warnings[0]}\n"


def test_compare_names_what_differs(tmp_path):
    """A ratio between two machines or versions says so, once."""
    a = written(tmp_path / "a.jsonl", changed(), changed(batch_size=4))
    other = {"cpu": "EPYC", "mindspore": "2.11.0"}
    b = written(tmp_path / "b.jsonl", changed(machine=other), changed(machine=other, batch_size=4))
    assert compare(a, b)[1] == ["cpu differs: Xeon in A, EPYC in B", "mindspore differs: 2.10.0 in A, 2.11.0 in B"]


@pytest.mark.parametrize(
    "difference",
    [
        {"options": {"width": 8}},
        {"image_size": [224, 448]},
        {"amp_level": "O2"},
        {"device_target": "GPU"},
        {"form": "ONNX, folded"},
    ],
)
def test_compare_only_what_is_alike(tmp_path, difference):
    """Other options, sizes or precision are another measurement."""
    a, b = written(tmp_path / "a.jsonl", changed()), written(tmp_path / "b.jsonl", changed(**difference))
    with pytest.raises(UserError, match="in common"):
        compare(a, b)


def test_figures_are_of_one_image():
    """Median and quartiles of what batches took, in milliseconds an image; one run alone is all three."""
    assert per_image([0.6, 0.2, 0.4], batch_size=2) == {
        "ms_per_image": pytest.approx(200),
        "ms_per_image_q1": pytest.approx(150),
        "ms_per_image_q3": pytest.approx(250),
    }
    assert set(per_image([0.5], batch_size=1).values()) == {500}


def test_sizes_and_sweeps():
    """Height comes before width, as in tensors."""
    assert parse_image_size("800x1333") == (800, 1333)
    assert parse_sweep("image_size=64, 32x16") == ("image_size", [(64, 64), (32, 16)])
    assert parse_sweep("batch_size=1,2") == ("batch_size", [1, 2])


def test_gpu_is_named(tmp_path, monkeypatch):
    """Figures of a GPU name it, those of a CPU do not; a machine without its driver has none."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine()["gpu"] == ""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho NVIDIA A\necho NVIDIA B\n")
    tool.chmod(0o755)
    here = machine()
    assert here["gpu"] == "NVIDIA A, NVIDIA B"
    assert machine_text(here, "GPU") == f"NVIDIA A, NVIDIA B, {machine_text(here, 'CPU')}"
    tool.write_text("#!/bin/sh\necho no driver\nexit 9\n")
    assert machine()["gpu"] == ""
