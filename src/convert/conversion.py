# SPDX-License-Identifier: Apache-2.0
"""A published PyTorch file becomes a checkpoint, and a checkpoint a file that the published code loads."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import mindspore as ms
import numpy as np

from src.config import ModelConfig
from src.convert.forms import form_of
from src.convert.published_code import compare
from src.convert.torch_file import read_state_dict, write_state_dict
from src.errors import UserError
from src.models.image_size import resizers
from src.models.published import from_published, published_names, published_parts, to_published
from src.ops.draws import random_state
from src.training.atomic import replacing
from src.training.checkpoint import load_weights, read_checkpoint, save_weights
from src.training.finite import check_finite


class Report(NamedTuple):
    """What a conversion did.

    Attributes:
        model: settings of the checkpoint's model.
        rows: (our name, our shape, published name, published shape, note) of each published tensor. Ours are "" where
            the parameter of the row before goes on, the published ones where it keeps its initial value.
        buffers: number of published tensors that are no parameters, left out or made.
        difference: of the two networks' logits, as a part of the largest of them; None: not compared.
        said: what was chosen of the PyTorch file, a sentence each.
    """

    model: ModelConfig
    rows: list
    buffers: int
    difference: float | None
    said: tuple = ()


def to_checkpoint(path, output, model, num_classes=None, drop_head=False, published_code=None, entry=None):
    """Convert a published PyTorch file to a checkpoint.

    Args:
        path: PyTorch file.
        output: the `.ckpt` file to write.
        model (ModelConfig): the model; positions are interpolated to its `image_size` and window.
        num_classes (int): of the checkpoint; None: as many as the file has, or without a classifier as `model` has.
        drop_head (bool): leave the classifier of the file out and start a new one (seed 0).
        published_code: its folder (see `compare`): run both networks, and write only if they agree. None: do not.
        entry (str): which of the file's sets of weights, see `read_state_dict`.

    Returns:
        Report.

    Raises:
        UserError: the file cannot be read, is not of this model or has values that are not finite, or `output` cannot
            be written.
        WrongConversion: the two networks differ.
    """
    form = form_of(model)
    _check_verified(form, published_code)
    content, said = read_state_dict(path, entry)
    check_finite(content, path)
    tensors = {name: tensor for name, tensor in content.items() if not form.buffers.includes(name)}
    buffers = len(content) - len(tensors)
    model = dataclasses.replace(model, num_classes=_classes(path, form, tensors, model, num_classes, drop_head))
    ms.set_seed(0)
    network = form.build_ours(model)
    parameters = _by_name(network)
    filled = dict(parameters)
    if drop_head:
        tensors, filled = (
            {name: value for name, value in values.items() if not name.startswith(tuple(heads))}
            for values, heads in ((tensors, form.heads), (filled, form.heads.values()))
        )
    rules = _naming(form, filled, tensors)
    try:
        fitted, interpolated = _fitted(network, tensors, rules)
        values = from_published({name: parameter.shape for name, parameter in filled.items()}, fitted, rules)
    except ValueError as error:
        raise UserError(f"{path} does not fit {model.title}: {error}") from error
    if published_code is not None and (drop_head or interpolated):
        raise UserError(
            "--verify compares whole networks: leave it out, or convert without --drop_head and at the image size and "
            "window of the file"
        )
    for name, value in values.items():
        parameters[name].set_data(ms.Tensor(value))

    difference = None
    with replacing(output) as temporary:
        save_weights(temporary, network, {"model": dataclasses.asdict(model), "converted_from": Path(path).name})
        if published_code is not None:
            load_weights(network, temporary)
            state = {**tensors, **form.buffers.make(network, model.image_size, tensors)}
            difference = compare(form, model, network, state, published_code)
    rows = _rows(parameters, filled, tensors, interpolated, rules)
    return Report(model, rows, buffers, difference, tuple(said))


def to_pytorch(path, output, model, published_code=None):
    """Convert a checkpoint to the bare state dict that the published code loads with `strict=True`.

    Args:
        path: `.ckpt` file.
        output: PyTorch file to write.
        model (ModelConfig): the model, see `model_of`; positions are interpolated to its `image_size` and window.
        published_code: as for `to_checkpoint`.

    Returns:
        Report.

    Raises:
        UserError: the checkpoint cannot be read, is not of this model or has values that are not finite, or `output`
            cannot be written.
        WrongConversion: the two networks differ.
    """
    form = form_of(model)
    _check_verified(form, published_code)
    network = form.build_ours(model)
    load_weights(network, path)
    parameters, in_file = _by_name(network), read_checkpoint(path)[0]
    interpolated = {
        name for name in resizers(network) if not np.array_equal(in_file[name].asnumpy(), parameters[name].asnumpy())
    }
    check_finite(parameters, path)
    tensors = to_published({name: parameter.asnumpy() for name, parameter in parameters.items()}, form.rules)
    buffers = form.buffers.make(network, model.image_size, tensors)
    difference = None
    with replacing(output) as temporary:
        write_state_dict(temporary, {**tensors, **buffers})
        if published_code is not None:
            difference = compare(form, model, network, read_state_dict(temporary)[0], published_code)
    return Report(model, _rows(parameters, parameters, tensors, interpolated, form.rules), len(buffers), difference)


def model_of(path, name):
    """Return the settings of the model that a checkpoint was written for, as a `ModelConfig`.

    Raises:
        UserError: the checkpoint cannot be read, or is not of the model `name`.
    """
    _, meta = read_checkpoint(path)
    if "model" not in meta:
        raise UserError(f"checkpoint {path} does not say which model it was written for; give --config")
    model = ModelConfig(**meta["model"])
    if model.name != name:
        raise UserError(f"checkpoint {path} was written for {model.name}; give --model {model.name}")
    return model


def _by_name(network):
    counters = random_state(network)
    return {parameter.name: parameter for parameter in network.get_parameters() if parameter.name not in counters}


def _check_verified(form, published_code):
    """Refuse to run published code where there is none to run."""
    if published_code is not None and form.build is None:
        raise UserError(f"--verify runs no {form.source}; leave it out")


def _naming(form, parameters, tensors):
    """Return the rules by which most of the published names are in a file; of equals the usual ones."""

    def there(rules):
        return sum(part in tensors for name in parameters for part in published_names(name, rules))

    return max(form.namings, key=there)


def _classes(path, form, tensors, model, wanted, drop_head):
    """Return how many classes the checkpoint is to have."""
    bias = tensors.get(f"{next(iter(form.heads))}bias")
    if bias is None:
        return model.num_classes if wanted is None else wanted
    there = form.classes(bias.size)
    if wanted not in (None, there) and not drop_head:
        raise UserError(
            f"{path} has {there} classes, not the {wanted} of --num_classes (or of the configuration); ask for "
            f"{there}, or start a new classifier with --drop_head"
        )
    return there if wanted is None else wanted


def _fitted(network, tensors, rules):
    """Return the tensors, those of another image size or window brought to the network's, and a set of their names.

    Raises:
        ValueError: a table of which it cannot be told what it is of; names it.
    """
    fitted, interpolated = dict(tensors), set()
    for ours, resize in resizers(network).items():
        (name,) = published_names(ours, rules)
        if name in fitted:
            try:
                fitted[name] = resize(fitted[name], None)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            if fitted[name] is not tensors[name]:
                interpolated.add(ours)
    return fitted, interpolated


def _rows(parameters, filled, tensors, interpolated, rules):
    rows = []
    for name, parameter in parameters.items():
        ours = (name, parameter.shape)
        if name not in filled:
            rows.append((*ours, "", "", "initial value"))
            continue
        parts = published_parts(name, parameter.shape, rules)
        for part in parts:
            note = "stacked" if len(parts) > 1 else "interpolated" if name in interpolated else ""
            rows.append((*ours, part.name, tensors[part.name].shape, note))
            ours = ("", "")
    return rows
