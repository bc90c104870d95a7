# SPDX-License-Identifier: Apache-2.0
"""Running the published PyTorch code beside ours. None of it is kept here: the caller has a clone of its repository.

What that code imports but a comparison does not need is stood in for, so that PyTorch alone is enough: timm (initial
values, stochastic depth), a removed module of torchvision, and SAN's CUDA kernel, which no CPU runs.
"""

import contextlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import mindspore as ms
import numpy as np

from src.convert.forms import TORCHVISION
from src.convert.torch_file import import_torch
from src.errors import UserError
from src.image_size import sides

# Largest difference of the logits, as a part of the largest of them.
TOLERANCE = 1e-3
IMAGES = 2


class WrongConversion(Exception):
    """The converted network does not compute what the published one computes."""


def compare(form, model, network, tensors, folder):
    """Run the published network with `tensors` and ours on the same images.

    Args:
        form (Form): of the model.
        model (ModelConfig): its settings.
        network (nn.Cell): ours, with its weights.
        tensors (dict): the published state dict as arrays; loaded with `strict=True`.
        folder: clone of the repository `form.source`, whose code is run; not read for torchvision.

    Returns:
        float: the largest difference of the logits, as a part of the largest of them.

    Raises:
        UserError: the published code cannot be had, does not load these tensors or makes no finite logits of them.
        WrongConversion: the difference is above `TOLERANCE`.
    """
    torch = import_torch()
    if model.options or model.in_channels != 3:
        raise UserError(f"--verify compares {model.name} as it was published, without options and with in_channels 3")
    published = form.build(_load(form, folder, torch), model.num_classes, model.image_size).eval()
    try:
        published.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in tensors.items()})
    except RuntimeError as error:
        raise UserError(f"the published code in {folder or form.source} does not load the weights: {error}") from error
    images = np.random.default_rng(0).standard_normal((IMAGES, 3, *sides(model.image_size)), np.float32)
    with torch.no_grad():
        expected = published(torch.from_numpy(images)).numpy()
    if not np.isfinite(expected).all():
        raise UserError("with these weights the published network gives logits that are not finite; take other weights")
    logits = network.set_train(False)(ms.Tensor(images)).asnumpy()
    difference = float(np.abs(logits - expected).max() / (np.abs(expected).max() or 1))
    # Not `>`, which lets NaN pass.
    if not difference <= TOLERANCE:
        raise WrongConversion(
            f"{model.name} differs from the published network by {difference:.1e} of the largest logit (allowed: "
            f"{TOLERANCE:.0e}); nothing was written"
        )
    return difference


def _load(form, folder, torch):
    """Return the module that defines the published network."""
    if form.source == TORCHVISION:
        try:
            return importlib.import_module("torchvision.models")
        # A torchvision made for another PyTorch raises RuntimeError.
        except (ImportError, RuntimeError) as error:
            raise UserError(
                f"--verify takes torchvision, which cannot be imported here ({error}): pip install torch torchvision"
            ) from error
    file = Path(folder, form.file)
    if not folder or not file.is_file():
        where = f"{folder} has no {form.file}" if folder else "--verify runs the published code"
        raise UserError(f"{where}; git clone {form.source} and give its folder: --verify FOLDER")
    spec = importlib.util.spec_from_file_location(f"published_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    with _importable(_stand_ins(torch), file.parent):
        spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _importable(modules, folder):
    """Let `modules`, by name, and the files in `folder` be imported."""
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _stand_ins(torch):
    """Return modules by name: what the published files import, as far as evaluation needs it."""
    contents = {
        "timm.models.layers": {
            "DropPath": torch.nn.Identity,
            "to_2tuple": lambda value: value if isinstance(value, tuple) else (value, value),
            "trunc_normal_": torch.nn.init.trunc_normal_,
        },
        "timm.models.registry": {"register_model": lambda build: build},
        "timm.models.vision_transformer": {"_cfg": dict},
        "torchvision.models.utils": {"load_state_dict_from_url": None},
        "lib.sa.modules": {"Subtraction": None, "Subtraction2": None, "Aggregation": _aggregation(torch)},
    }
    modules = {}
    for name, content in contents.items():
        for end in [*(at for at, sign in enumerate(name) if sign == "."), len(name)]:
            modules.setdefault(name[:end], ModuleType(name[:end]))
        vars(modules[name]).update(content)
    return modules


def _aggregation(torch):
    class Aggregation(torch.nn.Module):
        """Sum the k*k pixels around each, by weights that every G-th channel shares.

        Inputs: x (B, C, H, W), reflected at its borders; weight (B, G, k*k, H*W). Outputs: (B, C, H, W).
        """

        def __init__(self, kernel_size, stride, padding, dilation, pad_mode):
            super().__init__()
            self.kernel_size, self.padding = kernel_size, padding

        def forward(self, x, weight):
            padded = torch.nn.functional.pad(x, [self.padding] * 4, mode="reflect")
            windows = torch.nn.functional.unfold(padded, self.kernel_size)
            windows = windows.reshape(len(x), -1, *weight.shape[1:])
            return (windows * weight[:, None]).sum(-2).reshape(x.shape)

    return Aggregation
