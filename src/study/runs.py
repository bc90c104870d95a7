# SPDX-License-Identifier: Apache-2.0
"""The trainings of a study: each variant with each seed in a folder of its own, so that a stopped study goes on."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

from src.config import ModelConfig, load_config
from src.errors import UserError, did_you_mean
from src.models.complexity import count_multiply_adds, count_parameters
from src.schema import walk
from src.tasks.classification import Classification
from src.training.atomic import replacing
from src.training.metrics import read_metrics
from src.training.network import build_network
from src.training.run_folder import RunFolder
from src.training.trainer import train

# What may differ between the two halves of a run: where it is, not what it is.
_FREE = ("output_dir", "data.data_dir", "data.num_workers", "device.device_id")


@dataclass(frozen=True)
class Variant:
    """One of the things that a study compares.

    Attributes:
        name: of its folder, and in JSON.
        label: in tables and pictures.
        model (ModelConfig): what it is made by.
        build: `build(model)` makes the network, freshly initialised.
        is_usual: whether it is trained where none are named.
    """

    name: str
    label: str
    model: ModelConfig
    build: Callable = build_network
    is_usual: bool = True


def built_with(kind, change):
    """Return a `build` of a `Variant`: the network of the model, after `change(cell)` of its Cells of `kind`."""

    def build(model):
        network = build_network(model)
        for _, cell in list(network.cells_and_names()):
            if isinstance(cell, kind):
                change(cell)
        return network

    return build


def chosen(variants, names):
    """Return those of `variants` with one of `names`; without names the usual ones.

    Raises:
        UserError: a name is none of theirs.
    """
    known = [variant.name for variant in variants]
    for name in names or ():
        if name not in known:
            raise UserError(f"--variants {name} is none of {', '.join(known)}{did_you_mean(name, known)}")
    return [variant for variant in variants if (variant.name in names if names else variant.is_usual)]


def with_options(model, **options):
    """Return a `ModelConfig` with these options over its own."""
    return replace(model, options={**model.options, **options})


def sizes(variant):
    """Return the trainable parameters and the multiply-adds of one image.

    Raises:
        UserError: the model does not take its options.
    """
    model = variant.model
    network = variant.build(model).set_train(False)
    shape = (1, model.in_channels, *model.size)
    return {"parameters": count_parameters(network), "multiply_adds": count_multiply_adds(network, shape)}


def train_all(variants, config, seeds, world):
    """Train each variant with each of `seeds` in `config.output_dir`/NAME/seedN; what is there already is not repeated.

    Args:
        variants (list): a `Variant` each.
        config (Config): all but the model and the seed.
        seeds (list): of `train.seed`; all variants have the first before any has the second.
        world (World): this worker among the others.

    Returns:
        dict: of each variant's name a result for each seed, see `result_of`; None if SIGTERM asked to stop.

    Raises:
        UserError: a training fails, or a folder holds one of other settings.
    """
    results = {variant.name: [] for variant in variants}
    for number, seed in enumerate(seeds):
        for place, variant in enumerate(variants, 1):
            run = replace(
                config,
                model=variant.model,
                train=replace(config.train, seed=seed),
                output_dir=str(Path(config.output_dir) / variant.name / f"seed{seed}"),
            )
            if world.rank == 0:
                done = f"run {number * len(variants) + place} of {len(seeds) * len(variants)}"
                print(f"{done}: {variant.label}, seed {seed}", file=sys.stderr, flush=True)
            result = result_of(run, world, variant.build)
            if result is None:
                return None
            results[variant.name].append(result)
    return results


def result_of(run, world, build):
    """Train, or go on with, what the `Config` says; what a finished run has left is only read.

    Returns:
        dict: seed, top1, best_top1 in percent, loss, and alpha and beta by layer, {} in a model without; None if
        SIGTERM asked to stop.
    """
    folder = RunFolder(run.output_dir)
    kept = folder.path / "result.json"
    _check_same(folder, run)
    if kept.exists():
        return json.loads(kept.read_text(encoding="utf-8"))
    state = train(Classification(run, build), world, resume="auto")
    if state["is_stopped"]:
        return None
    paths = [line for line in read_metrics(folder.metrics) if line["kind"] == "paths"]
    last = paths[-1] if paths else {"alpha": {}, "beta": {}}
    result = {
        "seed": run.train.seed,
        **{"top1": state["top1"], "best_top1": state["best"], "loss": state["loss"]},
        **{name: last[name] for name in ("alpha", "beta")},
    }
    if world.rank == 0:
        with replacing(kept) as temporary:
            temporary.write_text(json.dumps(result), encoding="utf-8")
    return result


def _check_same(folder, run):
    """Refuse a folder whose run was begun with other settings: its accuracy would be another's."""
    if not folder.config.exists():
        return
    before = load_config(folder.config)
    for name, _, _ in walk(type(run)):
        then, now = (reduce(getattr, name.split("."), config) for config in (before, run))
        if then != now and name not in _FREE:
            raise UserError(
                f"{folder.path} holds a run with {name} {then!r}, now {now!r}; give the same, or another --output_dir"
            )
