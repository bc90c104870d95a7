# SPDX-License-Identifier: Apache-2.0
"""The recipes of ADE20K: the published networks, schedules and weight decay."""

from pathlib import Path

import numpy as np
import pytest
from published_decay import assert_published_decay

from src.config import load_config
from src.models.complexity import count_parameters
from src.models.segmenter import published_rules
from src.tasks import create_task
from src.training.optimizer import parameter_groups
from src.training.schedule import learning_rates, scaled_lr

CONFIGS = Path(__file__).resolve().parent.parent / "config"
# Parameters; images a step and devices; optimiser, rate, decay; steps, power, warm-up; stochastic depth.
ADAMW = ("adamw", 0.9, 0.999, 1e-8)
UPERNET_SWIN = (2, 8, ADAMW, 6e-5, 0.01, 160000, 1.0, 1500, 0.3)
FPN_PVT = (4, 8, ADAMW, 2e-4, 1e-4, 40000, 0.9, 0, 0.1)
PUBLISHED = {
    "upernet_swin_tiny": (59_941_862, *UPERNET_SWIN),
    "upernet_swin_small": (81_259_766, *UPERNET_SWIN),
    "fpn_pvt_tiny": (16_980_886, *FPN_PVT),
    "fpn_pvt_small": (28_237_462, *FPN_PVT),
    "fpn_resnet50": (28_495_574, 4, 8, ("momentum", 0.9), 0.02, 5e-4, 40000, 0.9, 0, 0.0),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipe(name):
    """Protects parameters, rates and weight decay of the plain networks, each against what was published."""
    parameters, batch, devices, optimizer, lr, decay, steps, power, warmup, drop_path = PUBLISHED[name]
    config = load_config(CONFIGS / f"{name}_ade20k.yaml")
    network = create_task(config).build()
    assert count_parameters(network) == parameters
    assert (config.model.num_classes, config.model.size, config.model.drop_path_rate) == (150, (512, 512), drop_path)
    assert (config.data.batch_size, config.train.steps) == (batch, steps)
    used = config.optimizer
    numbers = {"adamw": (used.beta1, used.beta2, used.epsilon), "momentum": (used.momentum,)}[used.name]
    assert (used.name, *numbers) == optimizer and used.clip_norm == 0
    assert (config.segmentation.average, config.segmentation.auxiliary_weight) == ("all", 0.4)

    peak = scaled_lr(used, batch, devices)
    rates = learning_rates(config.scheduler, peak, 20210 // (batch * devices), steps)
    assert len(rates) == steps and peak == pytest.approx(lr)
    for step in (0, 1, 749, 1499, 1500, 1501, steps // 2, steps - 1):
        share = 1 - (1 - step / warmup) * (1 - 1e-6) if step < warmup else 1
        assert rates[step] == pytest.approx(lr * share * (1 - step / steps) ** power, rel=1e-5)

    rules = published_rules(config.model.head, type(network.backbone))
    assert_published_decay(config, network, rules, decay)


@pytest.mark.parametrize("name", PUBLISHED)
def test_acmix_has_the_recipe_of_the_plain_network(name):
    """Protects the comparison: nothing differs but the operator, and that alpha and beta do not decay."""
    head, backbone = name.split("_", 1)
    plain, acmix = (
        load_config(CONFIGS / f"{each}_ade20k.yaml", ["--output_dir", "a", "--model.name", "a"])
        for each in (name, f"{head}_acmix_{backbone}")
    )
    assert load_config(CONFIGS / f"{head}_acmix_{backbone}_ade20k.yaml").model.name == f"acmix_{backbone}"
    there, here = plain.to_dict(), acmix.to_dict()
    patterns = {each["optimizer"].pop("no_decay") for each in (there, here)}
    assert there == here and len(patterns) == 2


@pytest.mark.parametrize("name", ["upernet_acmix_swin_tiny", "fpn_acmix_pvt_tiny", "fpn_acmix_resnet50"])
def test_decay_of_acmix(name):
    """Protects alpha and beta, and no batch norm's beta by mistake: they are all that the plain recipe decays."""
    config = load_config(CONFIGS / f"{name}_ade20k.yaml")
    plain = load_config(CONFIGS / f"{name.replace('acmix_', '')}_ade20k.yaml")
    network = create_task(config).build()
    without = [
        {
            p.name
            for group in parameter_groups(network, 1.0, no_decay=patterns)
            for p in group["params"]
            if not group["weight_decay"]
        }
        for patterns in (plain.optimizer.no_decay, config.optimizer.no_decay)
    ]
    cells = [
        cell
        for cell, _ in ((p.name.rpartition(".")[0], p) for p in network.trainable_params() if p.name.endswith(".alpha"))
    ]
    assert without[1] - without[0] == {f"{cell}.{path}" for cell in cells for path in ("alpha", "beta")}
    assert without[0] < without[1] and np.all([cell.startswith("backbone.") for cell in cells])
