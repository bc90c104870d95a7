# SPDX-License-Identifier: Apache-2.0
"""Which parameters the published recipes of networks on a backbone's maps let decay."""

from src.models.published import published_names
from src.training.optimizer import parameter_groups

# By family, what of a published name says that it has no decay.
NO_DECAY = {"swin": ("absolute_pos_embed", "relative_position_bias_table", "norm"), "pvt": (), "resnet50": ()}


def assert_published_decay(config, network, rules, decay):
    """Each parameter decays by `decay` or not, as its published tensors do, and each is in a group of the optimiser."""
    recipe = config.optimizer
    groups = parameter_groups(network, recipe.weight_decay, no_decay=recipe.no_decay)
    got = {p.name: group["weight_decay"] for group in groups for p in group["params"]}
    marks = next(marks for family, marks in NO_DECAY.items() if family in config.model.name)
    for ours, value in got.items():
        theirs = published_names(ours, rules)
        is_exempt = any(mark in part for mark in marks for part in theirs)
        assert value == (0 if is_exempt else decay), (ours, theirs)
    assert len(got) == len(network.trainable_params())
