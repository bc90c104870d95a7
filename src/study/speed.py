# SPDX-License-Identifier: Apache-2.0
"""How fast the variants of a study are: measured in turns once, and kept in a file."""

import dataclasses
from pathlib import Path

from src.measure.records import append_record, read_records, setting_of
from src.measure.setting import NETWORK, PHASES, PORTABLE, Setting
from src.measure.turns import measure

ROUNDS, RUNS = 5, 4


def times(variants, config, path):
    """Return the record (`src.measure.records`) of each variant, by its name.

    Images have three channels and there are 1,000 classes, as in all our measurements; batch and size are the study's.

    Args:
        variants (list): a `Variant` each; those of one model and options share a record, as they share the graph.
        config (Config): batch size, precision and device.
        path: file of records; measured are, all in turns, those of a study that it does not hold whole.

    Raises:
        UserError: a model cannot run, or the file cannot be read or written.
    """
    settings = {variant.name: setting(variant.model, config) for variant in variants}
    different = [one for place, one in enumerate(settings.values()) if one not in list(settings.values())[:place]]
    records = read_records(path) if Path(path).exists() else []
    if not all(find(records, one) for one in different):
        records = measure(different, PHASES, ROUNDS, RUNS)
        for record in records:
            append_record(path, record)
    return {name: find(records, one) for name, one in settings.items()}


def setting(model, config):
    """Return the `Setting` that a `ModelConfig` is timed under."""
    return Setting(
        model=model.name,
        options=model.options,
        batch_size=config.data.batch_size,
        image_size=model.size,
        amp_level=config.device.amp_level,
        amp_dtype=config.device.amp_dtype,
        device_target=config.device.target,
        form=PORTABLE if config.device.kernels == "portable" else NETWORK,
    )


def find(records, wanted):
    """Return the last record of a `Setting`, None without one."""
    for record in reversed(records):
        # JSON knows no tuples.
        if dataclasses.replace(setting_of(record), image_size=tuple(record["image_size"])) == wanted:
            return record
    return None
