# SPDX-License-Identifier: Apache-2.0
"""The recipes of COCO: the published networks, schedules and weight decay."""

from pathlib import Path

import pytest
from published_decay import assert_published_decay

from src.config import load_config
from src.models.complexity import count_parameters
from src.models.detector import published_rules
from src.tasks import create_task
from src.training.schedule import learning_rates, scaled_lr

CONFIGS = Path(__file__).resolve().parent.parent / "config"
# Parameters; optimiser, rate, decay; epochs, after which the rate drops; stochastic depth.
PVT, SWIN = ("adamw", 1e-4, 1e-4, 12, [8, 11], 0.1), ("adamw", 1e-4, 0.05, 12, [8, 11], 0.1)
SWIN_3X = ("adamw", 1e-4, 0.05, 36, [27, 33], 0.2)
PUBLISHED = {
    "retinanet_pvt_tiny": (22_964_212, *PVT),
    "retinanet_pvt_small": (34_220_788, *PVT),
    "retinanet_resnet50": (37_968_692, "momentum", 0.01, 1e-4, 12, [8, 11], 0.0),
    "maskrcnn_resnet50": (44_396_336, "momentum", 0.02, 1e-4, 12, [8, 11], 0.0),
    "maskrcnn_swin_tiny": (47_794_602, *SWIN),
    "maskrcnn_swin_small_3x": (69_112_506, *SWIN_3X),
    "cascade_maskrcnn_swin_tiny_3x": (85_629_804, *SWIN_3X),
}
# And whose parameters nobody counted.
OTHERS = ["maskrcnn_pvt_tiny", "maskrcnn_pvt_small", "maskrcnn_swin_tiny_3x", "cascade_maskrcnn_swin_tiny"]
OTHERS += ["cascade_maskrcnn_swin_small_3x"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipe(name):
    """Protects parameters, rates and weight decay of the plain networks, each against what was published."""
    parameters, optimizer, lr, decay, epochs, milestones, drop_path = PUBLISHED[name]
    config = load_config(CONFIGS / f"{name}_coco.yaml")
    network = create_task(config).build()
    assert count_parameters(network) == parameters
    assert (config.model.num_classes, config.model.size, config.model.drop_path_rate) == (80, (800, 1344), drop_path)
    used = config.optimizer
    assert (used.name, used.weight_decay, used.clip_norm, config.train.epochs) == (optimizer, decay, 0, epochs)

    steps = 100
    peak = scaled_lr(used, config.data.batch_size, 8)
    rates = learning_rates(config.scheduler, peak, steps, steps * epochs)
    assert peak == pytest.approx(lr)
    for step in (0, 250, 499, 500, steps * milestones[0] - 1, steps * milestones[0], steps * milestones[1]):
        share = 1 - (1 - step / 500) * (1 - 0.001) if step < 500 else 1
        drops = sum(step >= steps * milestone for milestone in milestones)
        assert rates[step] == pytest.approx(lr * share * 0.1**drops, rel=1e-5)

    rules = published_rules(config.model.head, type(network.backbone))
    assert_published_decay(config, network, rules, decay)


@pytest.mark.parametrize("name", [*PUBLISHED, *OTHERS])
def test_acmix_has_the_recipe_of_the_plain_network(name):
    """Protects the comparison: nothing differs but the operator, and that alpha and beta do not decay."""
    head = next(head for head in ("retinanet", "maskrcnn", "cascade_maskrcnn") if name.startswith(f"{head}_"))
    backbone = name.removeprefix(f"{head}_")
    plain, acmix = (
        load_config(CONFIGS / f"{each}_coco.yaml", ["--output_dir", "a", "--model.name", "a"])
        for each in (name, f"{head}_acmix_{backbone}")
    )
    named = load_config(CONFIGS / f"{head}_acmix_{backbone}_coco.yaml").model.name
    assert named == f"acmix_{backbone.removesuffix('_3x')}"
    there, here = plain.to_dict(), acmix.to_dict()
    patterns = {each["optimizer"].pop("no_decay") for each in (there, here)}
    assert there == here and len(patterns) == 2
