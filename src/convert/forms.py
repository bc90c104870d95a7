# SPDX-License-Identifier: Apache-2.0
"""Which models were published for PyTorch, and by whom."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from src.convert.buffers import BATCH_COUNTS, NO_BUFFERS, OPENMMLAB_CONSTANTS, WINDOW_CONSTANTS, Buffers
from src.errors import UserError, did_you_mean
from src.image_size import sides
from src.models import detector, list_models, pvt, resnet, san, segmenter, swin
from src.models.registry import backbone_of
from src.training.network import build_network, build_on_features

ACMIX = "https://github.com/LeapLabTHU/ACmix"
SWIN = "https://github.com/microsoft/Swin-Transformer"
SAN = "https://github.com/hszhao/SAN"
PVT = "https://github.com/whai362/PVT"
TORCHVISION = "torchvision"
MMSEGMENTATION, MMDETECTION = "mmsegmentation", "mmdetection"
PATCHWISE = 1  # how SAN's code calls that form of attention


class Form(NamedTuple):
    """The PyTorch form of a model.

    Attributes:
        namings: rules of the names in its files, see `src.models.published`, the usual ones first.
        heads: how the names of classifiers begin, {there: here}.
        buffers: what its files hold beside the parameters.
        source: repository of the code, `TORCHVISION`, `MMSEGMENTATION` or `MMDETECTION`.
        file: path of the code in the repository.
        build: `build(module, num_classes, image_size)` makes the published network of the module in `file`; None: the
            code is not run here.
        build_ours: `build_ours(model)` makes the network of a `ModelConfig`.
        classes: `classes(outputs)` is how many a classifier, the first of `heads`, of so many outputs tells apart.
    """

    namings: tuple
    heads: dict
    buffers: Buffers
    source: str
    file: str = ""
    build: Callable | None = None
    build_ours: Callable = build_network
    classes: Callable = int

    @property
    def rules(self):
        """Those of the usual names."""
        return self.namings[0]


_FC, _HEAD = {"fc.": "fc."}, {"head.": "head."}


def _acmix_resnet(blocks):
    def build(module, num_classes, image_size):
        return module.ACmix_ResNet(list(blocks), num_classes=num_classes)

    return Form((resnet.PUBLISHED,), _FC, BATCH_COUNTS, ACMIX, "ResNet/ResNet_ImageNet.py", build)


def _resnet50():
    def build(module, num_classes, image_size):
        return module.resnet50(num_classes=num_classes)

    return Form((resnet.PUBLISHED,), _FC, BATCH_COUNTS, TORCHVISION, "", build)


def _swin(source, file, network, depths):
    def build(module, num_classes, image_size):
        return getattr(module, network)(img_size=sides(image_size), num_classes=num_classes, depths=list(depths))

    return Form((swin.PUBLISHED,), _HEAD, WINDOW_CONSTANTS, source, file, build)


def _san(blocks):
    def build(module, num_classes, image_size):
        return module.san(PATCHWISE, blocks, san.KERNELS, num_classes)

    return Form((san.PUBLISHED,), _FC, BATCH_COUNTS, SAN, "model/san.py", build)


def _pvt(size):
    def build(module, num_classes, image_size):
        height, width = sides(image_size)
        if height != width:
            raise UserError("the published PVT classifies square images only; leave --verify out")
        return getattr(module, f"pvt_{size}")(img_size=height, num_classes=num_classes)

    return Form((pvt.PUBLISHED,), _HEAD, NO_BUFFERS, PVT, "classification/pvt.py", build)


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


# Backbones that OpenMMLab's projects have.
OPENMMLAB = ("resnet50", *(f"swin_{size}" for size in swin.DEPTHS), *(f"pvt_{size}" for size in pvt.DEPTHS))
_SEGMENTER_HEADS = {
    "decode_head.conv_seg.": "head.classifier.linear.",
    "auxiliary_head.conv_seg.": "auxiliary.classifier.linear.",
}


def _on_features(head, backbone):
    """Return the form of OpenMMLab's files, whose backbones are their own or, by their names, the authors'."""
    if head in segmenter.HEADS:
        kind, create, source = segmenter, segmenter.create_segmenter, MMSEGMENTATION
        heads, classes = _SEGMENTER_HEADS, int
    else:
        kind, create, source = detector, detector.create_detector, MMDETECTION
        heads, classes = detector.HEADS[head].classifiers, detector.HEADS[head].classes
    namings = tuple(kind.published_rules(head, backbone_of(backbone), as_authors) for as_authors in (False, True))
    build = partial(build_on_features, create)
    return Form(namings, heads, OPENMMLAB_CONSTANTS, source, build_ours=build, classes=classes)


def form_of(config):
    """Return the `Form` of a model by its `ModelConfig`.

    Raises:
        UserError: no such model, or nobody published it for PyTorch.
    """
    model = config.name
    if config.head and model in OPENMMLAB:
        return _on_features(config.head, model)
    if config.head:
        raise UserError(f"nobody published {config.title} for PyTorch; published are those on {', '.join(OPENMMLAB)}")
    if model in FORMS:
        return FORMS[model]
    published = f"published for PyTorch are {', '.join(sorted(FORMS))}"
    if model in list_models():
        raise UserError(f"nobody published {model} for PyTorch; {published}")
    raise UserError(f"no model {model}{did_you_mean(model, FORMS)}; {published}")
