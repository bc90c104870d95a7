# SPDX-License-Identifier: Apache-2.0
"""Which models were published for PyTorch, and by whom."""

from collections.abc import Callable
from typing import NamedTuple

from src.convert.buffers import BATCH_COUNTS, NO_BUFFERS, WINDOW_CONSTANTS, Buffers
from src.errors import UserError, did_you_mean
from src.image_size import sides
from src.models import list_models, pvt, resnet, san, swin

ACMIX = "https://github.com/LeapLabTHU/ACmix"
SWIN = "https://github.com/microsoft/Swin-Transformer"
SAN = "https://github.com/hszhao/SAN"
PVT = "https://github.com/whai362/PVT"
TORCHVISION = "torchvision"
PATCHWISE = 1  # how SAN's code calls that form of attention


class Form(NamedTuple):
    """The PyTorch form of a model.

    Attributes:
        rules: `PUBLISHED` of its family.
        head: how the names of the classifier begin, there and here.
        buffers: what its files hold beside the parameters.
        source: repository of the code, or `TORCHVISION`.
        file: path of the code in the repository.
        build: `build(module, num_classes, image_size)` makes the published network of the module in `file`.
    """

    rules: tuple
    head: str
    buffers: Buffers
    source: str
    file: str
    build: Callable


def _acmix_resnet(blocks):
    def build(module, num_classes, image_size):
        return module.ACmix_ResNet(list(blocks), num_classes=num_classes)

    return Form(resnet.PUBLISHED, "fc.", BATCH_COUNTS, ACMIX, "ResNet/ResNet_ImageNet.py", build)


def _resnet50():
    def build(module, num_classes, image_size):
        return module.resnet50(num_classes=num_classes)

    return Form(resnet.PUBLISHED, "fc.", BATCH_COUNTS, TORCHVISION, "", build)


def _swin(source, file, network, depths):
    def build(module, num_classes, image_size):
        return getattr(module, network)(img_size=sides(image_size), num_classes=num_classes, depths=list(depths))

    return Form(swin.PUBLISHED, "head.", WINDOW_CONSTANTS, source, file, build)


def _san(blocks):
    def build(module, num_classes, image_size):
        return module.san(PATCHWISE, blocks, san.KERNELS, num_classes)

    return Form(san.PUBLISHED, "fc.", BATCH_COUNTS, SAN, "model/san.py", build)


def _pvt(size):
    def build(module, num_classes, image_size):
        height, width = sides(image_size)
        if height != width:
            raise UserError("the published PVT classifies square images only; leave --verify out")
        return getattr(module, f"pvt_{size}")(img_size=height, num_classes=num_classes)

    return Form(pvt.PUBLISHED, "head.", NO_BUFFERS, PVT, "classification/pvt.py", build)


FORMS = {
    **{f"acmix_resnet{depth}": _acmix_resnet(blocks) for depth, blocks in resnet.BLOCKS.items()},
    "resnet50": _resnet50(),
    **{
        f"acmix_swin_{size}": _swin(
            ACMIX, "Swin-Transformer/models/swin_transformer_acmix.py", "SwinTransformer_acmix", depths
        )
        for size, depths in swin.DEPTHS.items()
    },
    **{
        f"swin_{size}": _swin(SWIN, "models/swin_transformer.py", "SwinTransformer", depths)
        for size, depths in swin.DEPTHS.items()
    },
    **{f"san{depth}": _san(blocks) for depth, blocks in san.BLOCKS.items()},
    **{f"pvt_{size}": _pvt(size) for size in pvt.DEPTHS},
}


def form_of(model):
    """Return the `Form` of a model by name.

    Raises:
        UserError: no such model, or nobody published it for PyTorch.
    """
    if model in FORMS:
        return FORMS[model]
    published = f"published for PyTorch are {', '.join(sorted(FORMS))}"
    if model in list_models():
        raise UserError(f"nobody published {model} for PyTorch; {published}")
    raise UserError(f"no model {model}{did_you_mean(model, FORMS)}; {published}")
