# SPDX-License-Identifier: Apache-2.0
"""scripts/reproduce.py: that the variants are what they are called, and that a stopped study goes on."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from mindspore import Tensor
from scipy.stats import ttest_rel
from test_entry_points import refused, run
from tiny_training import Tiny, changed

from src.device import World
from src.errors import UserError
from src.models import registry
from src.ops import ACmix
from src.ops.acmix import WeightedSum
from src.study import cost, decomposition, paths, shift, speed
from src.study.report import compare, comparison_note, comparison_table, conditions, row_of
from src.study.runs import Variant, chosen, train_all

FIGURES = {"ms_per_image": 2.0, "ms_per_image_q1": 1.5, "ms_per_image_q3": 3.0}


@pytest.fixture
def acmix(config):
    """A training of one epoch of a network with one ACmix."""
    registry.register_model("acmix_tiny_for_tests", Tiny, ACmix)
    model = {"name": "acmix_tiny_for_tests", "options": {"kernel_att": 3}}
    return changed(config, model=model, train={"epochs": 1})


def made(variant):
    ms.set_seed(1)
    network = variant.build(variant.model)
    return {parameter.name: parameter for parameter in network.get_parameters()}


@pytest.mark.parametrize(
    "place",
    [
        decomposition.Place(4, 8, 3, 1, 1, 1, (6, 5), kernel_att=3, heads=2),
        decomposition.Place(8, 8, 5, 2, 1, 4, (7, 6), kernel_att=7, heads=4),
        decomposition.Place(6, 4, 3, 2, 2, 2, (5, 9), kernel_att=5, heads=1),
    ],
)
def test_stages_cost_what_the_formulas_say(place):
    """What is counted while the three run is what the paper's formulas give; both forms of a convolution agree."""
    for module, stages in decomposition.modules(place).items():
        assert decomposition.counted(stages, place) == decomposition.operations(place)[module]
    difference, largest = decomposition.largest_difference(place)
    assert difference < 1e-5 * largest


def test_tied_weights_learn_as_alpha_and_its_rest():
    """Forward it is the sum; the gradient of alpha is that of alpha * a + (1 - alpha) * b, and beta's its opposite."""
    rng = np.random.default_rng(0)
    a, b, weight = (Tensor(rng.standard_normal((2, 3, 4, 4)).astype(np.float32)) for _ in range(3))
    alpha, beta = Tensor([0.3], ms.float32), Tensor([0.7], ms.float32)
    tied = paths.TiedSum(WeightedSum())

    def loss(alpha, beta):
        return (tied(alpha, a, beta, b) * weight).sum()

    dalpha, dbeta = ms.grad(loss, (0, 1))(alpha, beta)
    expected = ((a - b) * weight).sum().asnumpy()
    assert np.allclose(tied(alpha, a, beta, b).asnumpy(), (0.3 * a + 0.7 * b).asnumpy(), atol=1e-6)
    assert np.allclose(dalpha.asnumpy(), expected, rtol=1e-5) and np.allclose(dbeta.asnumpy(), -expected, rtol=1e-5)


def test_variants_are_what_they_are_called(acmix):
    """Which weights of the paths exist and learn, and what the kernels of the shift begin with."""
    learned = {}
    for variant in paths.variants(acmix):
        parameters = made(variant)
        learned[variant.name] = {
            path: parameters[f"conv.{path}"].requires_grad for path in ("alpha", "beta") if f"conv.{path}" in parameters
        }
    both, none, one = ({"alpha": a, "beta": b} for a, b in ((True, True), (False, False), (True, False)))
    assert learned == {"convolution": {}, "attention": {}, "fixed": none, "one": one, "tied": both, "free": both}

    kernels = {v.name: made(v).get("conv.convolution.shift.weight") for v in shift.variants(acmix)}
    assert kernels["slice"] is None
    assert {name: kernels[name].requires_grad for name in ("fixed", "random", "learnable")} == {
        "fixed": False,
        "random": True,
        "learnable": True,
    }
    values = {name: kernels[name].asnumpy() for name in ("fixed", "random", "learnable")}
    assert (values["fixed"] == values["learnable"]).all() and set(np.unique(values["fixed"])) == {0, 1}
    # Uniform, up to the root of one over the numbers that a kernel sums: 9 maps of 3 x 3.
    assert values["random"].std() > 0.05 and np.abs(values["random"]).max() <= 1 / 9
    (again,) = [made(v)["conv.convolution.shift.weight"] for v in shift.variants(acmix) if v.name == "random"]
    assert (again.asnumpy() == values["random"]).all()


def test_optimiser_that_parts_tied_weights(acmix):
    """LAMB's steps depend on the parameter, so that alpha and beta would no longer add up to 1."""
    with pytest.raises(UserError, match="adamw"):
        paths.variants(changed(acmix, optimizer={"name": "lamb", "momentum": 0.9}))


def test_family(config):
    """The models of the cost study are the sizes of the family, of given depths one size; options hold for all."""

    def names(**options):
        model = replace(config.model, name="acmix_san10", options=options)
        variants = cost.variants(replace(config, model=model))
        assert all(variant.model.options == options for variant in variants)
        return [variant.name for variant in variants]

    assert names(stem="small") == [p + s for s in ("san10", "san15", "san19") for p in ("", "acmix_")]
    assert names(stem="small", depths=[1, 1, 1, 1, 1]) == ["san10", "acmix_san10"]


def test_chosen_variants(config):
    """`--variants` trains those it names, of cost also attention alone, which is not usual; strangers are named."""
    resnets = cost.variants(replace(config, model=replace(config.model, name="sasa_resnet38")))
    usual = [variant.name for variant in chosen(resnets, None)]
    assert usual == [p + s for s in ("resnet26", "resnet38", "resnet50") for p in ("", "acmix_")]
    three = ["acmix_resnet26", "resnet26", "sasa_resnet26"]
    assert sorted(variant.name for variant in chosen(resnets, three)) == three
    with pytest.raises(UserError, match=r"--variants resnet62 is none of resnet26, .*did you mean 'resnet26'"):
        chosen(resnets, ["resnet62"])


def test_a_stopped_study_goes_on(config, acmix):
    """What is finished is not trained again, what was stopped goes on, and what it gives is the whole result."""
    config = changed(config, train={"epochs": 2})

    variant = Variant("plain", "plain", config.model)
    (tied,) = [variant for variant in paths.variants(acmix) if variant.name == "tied"]
    last = Path(config.output_dir) / "tied" / "seed3" / "last.ckpt"

    def stopped(model):
        os.kill(os.getpid(), signal.SIGTERM)
        return tied.build(model)

    def repeated(model):
        raise AssertionError("trained again")

    assert train_all([variant, replace(tied, build=stopped)], config, [3], World()) is None
    assert last.exists()
    results = train_all([replace(variant, build=repeated), tied], config, [3], World())
    assert [len(of_seeds) for of_seeds in results.values()] == [1, 1]
    (result,) = results["tied"]
    assert result["seed"] == 3 and 0 <= result["top1"] <= result["best_top1"]
    alpha, beta = result["alpha"]["conv"], result["beta"]["conv"]
    assert alpha != 0.5 and alpha + beta == pytest.approx(1, abs=1e-6)
    steps = [json.loads(line)["step"] for line in (last.parent / "metrics.jsonl").read_text().splitlines()]
    assert max(steps) == 12 and not (last.parent / "previous-1").exists()
    with pytest.raises(UserError, match=r"optimizer.lr 0.2, now 0.1"):
        train_all([variant], changed(config, optimizer={"lr": 0.1}), [3], World())


def test_times_are_taken_once(config, monkeypatch, tmp_path):
    """Variants of one graph share a measurement, all are measured in turns, and a second start reads what is there."""
    calls = []

    def measure(settings, phases, rounds, runs):
        calls.append(settings)
        figures = {**FIGURES, "compile_s": 1.0, "peak_gb": 1.0}
        common = {"parameters": 1, "multiply_adds": 1, "forward": figures, "train": figures, "machine": {}}
        return [{**vars(setting), **common, "ms": number} for number, setting in enumerate(settings)]

    monkeypatch.setattr(speed, "measure", measure)
    variants = shift.variants(config)
    for _ in range(2):
        records = speed.times(variants, config, tmp_path / "times.jsonl")
        assert {name: record["ms"] for name, record in records.items()} == {
            "slice": 0,
            "fixed": 1,
            "random": 2,
            "learnable": 2,
        }
    assert len(calls) == 1 and len(calls[0]) == 3


def rows_of(study, variants, seeds):
    """Rows of made-up results: each variant is a point better than the one before, each seed than the one before."""
    rows = []
    for number, variant in enumerate(variants):
        is_sum = study is paths and variant.name not in ("convolution", "attention")
        results = [
            {
                "seed": seed,
                "top1": 90.0 + number + seed,
                "best_top1": 99.0,
                "loss": 1.0,
                **{path: {"layer1": 0.4 + 0.1 * seed} if is_sum else {} for path in ("alpha", "beta")},
            }
            for seed in range(seeds)
        ]
        record = {"forward": FIGURES, "train": FIGURES, "machine": {}} if study.IS_TIMED else None
        size = {"parameters": 2e6, "multiply_adds": 1e9 * (number + 1)}
        rows.append(row_of(variant, size, results, record))
    return rows


@pytest.mark.parametrize("study", [paths, shift, cost])
def test_pictures_and_tables(study, config, tmp_path):
    """From figures to a picture whose title says what is seen, with one seed too; every variant has its row."""
    model = replace(config.model, name="acmix_resnet26")
    variants = chosen(study.variants(replace(config, model=model)), None)
    for seeds in (1, 3):
        rows = rows_of(study, variants, seeds)
        _, lines = study.table(rows)
        assert [line[0] for line in lines] == [variant.label for variant in variants]
        assert any(("± 1.00" in cell) == (seeds > 1) for line in lines for cell in line if cell.startswith("9"))
        study.draw(rows, "here and now", tmp_path / "study.png")
        assert (tmp_path / "study.png").stat().st_size > 20_000
        json.dumps(rows)
    said = {
        paths: "is +4.00 ± 0.00 points against attention",
        shift: "1.00x the forward time of fixed",
        cost: "+1.00 ± 0.00",
    }
    assert said[study] in study.title(rows)


@pytest.mark.parametrize(
    ("study", "names", "compared"),
    [
        (paths, ["fixed", "free"], ["free fixed"]),
        (paths, ["convolution", "attention"], []),
        (shift, ["slice", "learnable"], ["learnable slice"]),
        (cost, ["resnet26", "sasa_resnet26"], []),
        (cost, ["sasa_resnet26", "acmix_resnet26", "acmix_resnet38"], ["acmix_resnet26 sasa_resnet26"]),
    ],
)
def test_a_study_of_some_variants(study, names, compared, config, tmp_path):
    """Only what was trained is compared, ACmix with what it replaces; picture and title do without the rest."""
    model = replace(config.model, name="acmix_resnet26")
    rows = rows_of(study, chosen(study.variants(replace(config, model=model)), names), 2)
    assert [f"{row['name']} {other['name']}" for row, other in study.pairs(rows)] == compared
    assert f"of {len(rows)}: {rows[-1]['label']}, {rows[-1]['top1_mean']:.2f}" in study.title(rows)
    if study is not shift and len(rows) != len(compared) + 1:
        study.draw(rows, "here and now", tmp_path / "study.png")


@given(st.lists(st.tuples(*[st.integers(0, 10_000)] * 2), min_size=2, max_size=12))
def test_a_paired_comparison_is_students_test(tops):
    """Mean, standard errors and verdict are those of the paired t-test, seed by seed; JSON holds them."""
    one, other = ([top / 100 for top in column] for column in zip(*tops))
    assume(np.std(np.subtract(one, other)) > 1e-3)
    found = compare({"name": "a", "top1": one}, {"name": "b", "top1": other})
    expected = ttest_rel(one, other)
    assert (found["of"], found["against"]) == ("a", "b")
    assert found["differences"] == pytest.approx(np.subtract(one, other))
    assert found["standard_errors"] == pytest.approx(abs(expected.statistic), abs=1e-9)
    assert found["standard_error"] == pytest.approx(np.std(np.subtract(one, other), ddof=1) / len(one) ** 0.5)
    assume(abs(expected.pvalue - 0.05) > 1e-9)
    assert found["told_apart"] == (expected.pvalue < 0.05)
    json.dumps(found)


def test_words_of_a_comparison():
    """The table gives what the verdict follows from; without a spread there is none."""
    one, other = ({"name": name, "label": name} for name in "ab")
    pair = one | {"top1": [90.2, 90.1, 90.6]}, other | {"top1": [89, 90, 90]}
    _, (texts,) = comparison_table([pair])
    assert texts == ("a - b", "+1.20, +0.10, +0.60", "+0.63 ± 0.32", "2.0", "4.3", "no")
    assert "mean of 3" in comparison_note(3) and "5%" in comparison_note(3)
    # 90.3 - 90.2 is not 10.3 - 10.2 in binary.
    for tops, others in (([90.3], [90.2]), ([90.3, 10.3], [90.2, 10.2])):
        pair = one | {"top1": tops}, other | {"top1": others}
        _, (texts,) = comparison_table([pair])
        assert texts[2:] == ("+0.10", "", "", "") and compare(*pair)["told_apart"] is None
    assert "one seed" in comparison_note(1)


def test_conditions_say_how_long_and_of_what(config):
    """Under a table: epochs or steps, and how many images where they are limited."""
    assert "top-1 after epoch 3," in conditions(changed(config, train={"epochs": 3}), [0])
    small = changed(config, train={"steps": 70}, data={"train_limit": 5})
    assert "at most 5 training images a class; top-1 after step 70," in conditions(small, [0])


def test_decomposition(tmp_path):
    """The command as it is typed: table, JSON and picture."""
    words = "decomposition --in_channels 8 --out_channels 8 --size 6x4 --kernel_att 3 --heads 2 --markdown"
    done = run("scripts/reproduce.py", *words.split(), "--output_dir", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n| ") == 7 and "largest difference" in done.stdout
    content = json.loads((tmp_path / "decomposition.json").read_text())
    assert 0 <= content["largest_difference"] < 1e-5 and content["machine"]["cores"] > 0
    assert [row["counted"] == row["by_formula"] and row["ms_per_image"] > 0 for row in content["rows"]] == [True] * 6
    assert (tmp_path / "decomposition.png").stat().st_size > 20_000


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("", "study"),
        ("path", "paths"),
        ("paths --seeds 0", "--seeds"),
        ("paths --seeds many", "--seeds"),
        ("paths --variants", "--variants"),
        ("shift --optimizer.lrr 1", "optimizer.lr"),
        ("cost --config nothing.yaml", "nothing.yaml"),
        ("decomposition --groups 0", "--groups"),
        ("decomposition --size 7x", "--size"),
        ("decomposition --seeds 3", "--seeds"),
    ],
)
def test_mistakes(words, named):
    """One line and exit code 2, before MindSpore is loaded."""
    assert refused(run("scripts/reproduce.py", *words.split()), named)


@pytest.mark.parametrize(
    ("changes", "named"), [({"groups": 3}, "--groups 3"), ({"kernel": 2}, "odd"), ({"heads": 3}, "3")]
)
def test_places_that_cannot_be(changes, named):
    """A convolution that cannot be, or no attention in its place."""
    place = decomposition.Place(8, 8, 3, 1, 1, 1, (4, 4), kernel_att=3, heads=2)
    with pytest.raises(UserError, match=named):
        decomposition.decompose(replace(place, **changes))
