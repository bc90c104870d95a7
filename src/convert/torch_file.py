# SPDX-License-Identifier: Apache-2.0
"""PyTorch files as dicts of NumPy arrays, read without running code from them."""

import re
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np

from src.errors import UserError, did_you_mean

# `weights_only` of earlier releases could be tricked into running code (CVE-2025-32434).
_OLDEST = (2, 6)
# Settings that the published training scripts save beside the weights: read as plain mappings instead of refused.
_SETTINGS = ("yacs.config.CfgNode", "argparse.Namespace")
# What NumPy's numbers are made of, as the best accuracy so far, and mmengine's records of losses; nobody reads them.
_NUMBERS = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *("numpy.dtype", "numpy.ndarray"),
    *("mmengine.logging.history_buffer.HistoryBuffer", "builtins.getattr"),
)
_REFUSED = re.compile(r"GLOBAL (\S+) was not an allowed global")
# Where the published training scripts put the weights: as trained first, then averaged.
ENTRIES = ("model", "state_dict", "model_state_dict", "model_ema", "state_dict_ema", "ema", "ema_state_dict")
# Beside PyTorch's own averaged models.
_COUNTER = "n_averaged"
# What data parallel training, torch.compile and models around models put before all names.
_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")


class _Unread:
    """Stands for an object of a file, whatever it is made of."""

    def __init__(self, *arguments):
        pass

    def __setstate__(self, state):
        pass


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


def read_state_dict(path, entry=None):
    """Read the weights of a PyTorch file, be they the whole file or one of its entries.

    Args:
        path: the file.
        entry (str): which entry of the file; None: the file as a whole, or the first of `ENTRIES` that it has.

    Returns:
        dict: name -> array, floating-point numbers as float32.
        list: what was chosen and left out, a sentence each.

    Raises:
        UserError: there is no such file or entry, it holds no state dict, or reading it would run code.
    """
    if not Path(path).is_file():
        raise UserError(f"no file {path}; give the path of a PyTorch file")
    torch = import_torch()
    stand_ins = [(OrderedDict, name) for name in _SETTINGS] + [(_Unread, name) for name in _NUMBERS]
    try:
        with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings():
            # PyTorch's thoughts on a file that it is going to refuse.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file can raise anything
        refused = _REFUSED.search(str(error))
        cause = (
            f"it holds a {refused[1]}, which only running code could restore"
            if refused
            else "it is damaged, no PyTorch file, or holds objects that only running code from it could restore "
            f"({type(error).__name__})"
        )
        raise UserError(
            f"{path} cannot be read: {cause}; save its state dict alone: torch.save(model.state_dict(), FILE)"
        ) from error
    tensors, said = find_state_dict(content, torch.Tensor, path, entry)
    try:
        return {name: _array(tensor) for name, tensor in tensors.items()}, said
    except (RuntimeError, TypeError) as error:
        raise UserError(f"{path} holds tensors that are no plain arrays of numbers ({error})") from error


def write_state_dict(path, arrays):
    """Write a dict of arrays as a bare PyTorch state dict."""
    torch = import_torch()
    # A copy: views of one array would be written as the whole array each.
    torch.save({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}, path)


def find_state_dict(content, tensor, path, entry=None):
    """Return the dict of objects of class `tensor` in what a file holds, and what was chosen, a sentence each.

    A prefix that wrappers give all names (`_PREFIXES`) is taken off.

    Raises:
        UserError: there is none or no such entry, or it holds other things too.
    """
    entries = {key: value for key, value in content.items() if _has(value, tensor)} if isinstance(content, dict) else {}
    there = f"entries with weights: {', '.join(map(str, entries)) or 'none'}"
    if entry is not None and entry not in entries:
        raise UserError(f"{path} has no entry {entry} with weights{did_you_mean(entry, map(str, entries))}; {there}")
    if entry is None and not _has(content, tensor):
        entry = next((name for name in ENTRIES if name in entries), None)
        if entry is None:
            keys = f" with the keys {', '.join(map(str, list(content)[:8]))}" if isinstance(content, dict) else ""
            raise UserError(
                f"{path} holds a {type(content).__name__}{keys} but no state dict (tensors by name, bare or under "
                f"{', '.join(ENTRIES)}); {there}; name one with --entry"
            )
    said = []
    if entry is not None:
        content = entries.pop(entry)
        left = f"; left: {', '.join(map(str, entries))} (--entry takes another)" if entries else ""
        said.append(f"weights are those of the entry {entry}{left}")
    if _COUNTER in content:
        content = {name: value for name, value in content.items() if name != _COUNTER}
        said.append(f"{_COUNTER}, how many steps were averaged, is left out")
    foreign = [str(name) for name, value in content.items() if not (type(name) is str and isinstance(value, tensor))]
    if foreign:
        raise UserError(f"{path} has entries that are no tensors among its weights: {', '.join(foreign[:3])}")
    content, prefix = _unwrapped(content)
    if prefix:
        said.append(f"all names began with {prefix}, which is taken off")
    return content, said


def _has(value, tensor):
    return isinstance(value, dict) and any(isinstance(item, tensor) for item in value.values())


def _unwrapped(content):
    """Return the dict without the prefixes that all names share, and those prefixes."""
    taken = ""
    while prefix := next((prefix for prefix in _PREFIXES if all(name.startswith(prefix) for name in content)), ""):
        content, taken = {name.removeprefix(prefix): value for name, value in content.items()}, taken + prefix
    return content, taken


def _array(tensor):
    # NumPy has no bfloat16.
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy(force=True)
