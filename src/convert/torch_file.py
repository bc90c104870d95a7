# SPDX-License-Identifier: Apache-2.0
"""PyTorch files as dicts of NumPy arrays, read without running code from them."""

import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np

from src.errors import UserError

# `weights_only` of earlier releases could be tricked into running code (CVE-2025-32434).
_OLDEST = (2, 6)
# Settings that the published training scripts save beside the weights: read as plain mappings instead of refused.
_SETTINGS = ("yacs.config.CfgNode", "argparse.Namespace")


def import_torch():
    """Return the module `torch`.

    Raises:
        UserError: it is not installed, or too old to read a file safely.
    """
    try:
        import torch
    except ImportError as error:
        raise UserError("PyTorch files take PyTorch 2.6 or later, which is not here: pip install torch") from error
    if tuple(int(number) for number in torch.__version__.split(".")[:2]) < _OLDEST:
        raise UserError(
            f"PyTorch is {torch.__version__}, which cannot read a file safely: pip install --upgrade 'torch>=2.6'"
        )
    return torch


def read_state_dict(path):
    """Read the weights of a PyTorch file, be they the whole file or its entry `model` or `state_dict`.

    Returns:
        dict: name (without the `module.` of data parallel training) -> array; floating-point numbers as float32.

    Raises:
        UserError: there is no such file, it holds no state dict, or reading it would run code.
    """
    if not Path(path).is_file():
        raise UserError(f"no file {path}; give the path of a PyTorch file")
    torch = import_torch()
    try:
        with torch.serialization.safe_globals([(OrderedDict, name) for name in _SETTINGS]), warnings.catch_warnings():
            # PyTorch's thoughts on a file that it is going to refuse.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file can raise anything
        raise UserError(
            f"{path} cannot be read: it is damaged, no PyTorch file, or holds objects that only running code from it "
            f"could restore ({type(error).__name__}); save its state dict alone: torch.save(model.state_dict(), FILE)"
        ) from error
    tensors = find_state_dict(content, torch.Tensor, path)
    try:
        return {name: _array(tensor) for name, tensor in tensors.items()}
    except (RuntimeError, TypeError) as error:
        raise UserError(f"{path} holds tensors that are no plain arrays of numbers ({error})") from error


def write_state_dict(path, arrays):
    """Write a dict of arrays as a bare PyTorch state dict."""
    torch = import_torch()
    # A copy: views of one array would be written as the whole array each.
    torch.save({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}, path)


def find_state_dict(content, tensor, path):
    """Return the dict of objects of class `tensor` in what a file holds.

    Raises:
        UserError: there is none, or it holds other things too.
    """
    if isinstance(content, dict):
        nested = (content[key] for key in ("model", "state_dict") if isinstance(content.get(key), dict))
        content = next(nested, content)
    if not isinstance(content, dict) or not any(isinstance(value, tensor) for value in content.values()):
        keys = f" with the keys {', '.join(map(str, list(content)[:8]))}" if isinstance(content, dict) else ""
        raise UserError(
            f"{path} holds a {type(content).__name__}{keys} but no state dict (tensors by name, bare or under model or "
            "state_dict)"
        )
    foreign = [str(name) for name, value in content.items() if not isinstance(value, tensor)]
    if foreign:
        raise UserError(f"{path} has entries that are no tensors among its weights: {', '.join(foreign[:3])}")
    prefix = "module." if all(name.startswith("module.") for name in content) else ""
    return {name[len(prefix) :]: value for name, value in content.items()}


def _array(tensor):
    # NumPy has no bfloat16.
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy(force=True)
