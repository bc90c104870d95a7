# SPDX-License-Identifier: Apache-2.0
"""ResNet-26/38/50 with a plain 3x3 convolution, with ACmix in its place, or with self-attention alone.

The bottleneck is that of He et al. 2016 with the stride on its middle operator (ResNet v1.5), the only thing in which
the three differ. ResNet-26 and -38 are the shallower stacks of Ramachandran et al. 2019 (stand-alone self-attention).
"""

from functools import partial

from mindspore import nn
from mindspore.common.initializer import HeNormal

from src.models.drop_path import DropPath, drop_path_rates
from src.models.registry import register_model
from src.ops.acmix import ACmix

BLOCKS = {26: (1, 2, 4, 1), 38: (2, 3, 5, 2), 50: (3, 4, 6, 3)}
EXPANSION = 4
STEMS = {"imagenet": 4, "small": 1}  # name: by how much it shrinks the image


def convolution(in_channels, out_channels, kernel=1, stride=1):
    """A convolution without bias, padded to give ceil(size / stride)."""
    weight = HeNormal(mode="fan_out", nonlinearity="relu")
    return nn.Conv2d(in_channels, out_channels, kernel, stride, pad_mode="pad", padding=kernel // 2, weight_init=weight)


class ImageNetStem(nn.Cell):
    """7x7/2 convolution, norm, ReLU, 3x3/2 max pool: (B, in, H, W) -> (B, C, H/4, W/4)."""

    def __init__(self, in_channels, channels):
        super().__init__()
        self.conv = convolution(in_channels, channels, 7, 2)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        # Zeros never win after a ReLU, so padding apart equals a padded max pool, which ONNX export does not have.
        self.pad = nn.Pad(((0, 0), (0, 0), (1, 1), (1, 1)))
        self.pool = nn.MaxPool2d(3, 2, pad_mode="valid")

    def construct(self, x):
        return self.pool(self.pad(self.relu(self.bn(self.conv(x)))))


class SmallStem(nn.Cell):
    """3x3 convolution, norm, ReLU at full size, for images of 28 to 64 pixels."""

    def __init__(self, in_channels, channels):
        super().__init__()
        self.conv = convolution(in_channels, channels, 3)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()

    def construct(self, x):
        return self.relu(self.bn(self.conv(x)))


class Bottleneck(nn.Cell):
    """1x1 down, `spatial` with the stride, 1x1 up, and the shortcut: (B, in, H, W) -> (B, 4 * width, H', W')."""

    def __init__(self, in_channels, width, stride, spatial, drop_path, zero_init_residual):
        super().__init__()
        out_channels = width * EXPANSION
        self.conv1 = convolution(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = spatial(width, width, stride=stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = convolution(width, out_channels)
        self.bn3 = nn.BatchNorm2d(out_channels, gamma_init="zeros" if zero_init_residual else "ones")
        self.relu = nn.ReLU()
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.downsample = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.SequentialCell(
                convolution(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels)
            )

    def construct(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(self.drop_path(out) + self.downsample(x))


class ResNet(nn.Cell):
    """A stem, four stages of bottlenecks, global average pooling and a linear head.

    Args:
        depth (int): 26, 38 or 50.
        spatial: `spatial(in_channels, out_channels, stride=...)` makes the middle operator of a bottleneck.
        stem (str): "imagenet" (shrinks by 4) or "small" (keeps the size).
        width (int): channels of the stem and of the first stage's bottlenecks; 64 in the paper.
        zero_init_residual (bool): start each block as its shortcut, by a zero scale of its last norm.

    Raises:
        ValueError: an unknown stem, a width the operator cannot take, or an image smaller than the total stride.
    """

    def __init__(
        self, depth, spatial, num_classes, image_size, in_channels, drop_path_rate, stem, width, zero_init_residual
    ):
        super().__init__()
        if stem not in STEMS:
            raise ValueError(f"stem must be one of {', '.join(STEMS)}, got {stem!r}")
        smallest = STEMS[stem] * 8
        if image_size < smallest:
            advice = "; stem='small' takes images from 8 pixels" if stem != "small" else ""
            raise ValueError(f"image_size must be at least {smallest} with stem={stem!r}, got {image_size}{advice}")
        blocks = BLOCKS[depth]
        rates = iter(drop_path_rates(drop_path_rate, sum(blocks)))
        self.stem = (ImageNetStem if stem == "imagenet" else SmallStem)(in_channels, width)
        channels, stages = width, []
        for stage, count in enumerate(blocks):
            cells = []
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                cells.append(Bottleneck(channels, width << stage, stride, spatial, next(rates), zero_init_residual))
                channels = (width << stage) * EXPANSION
            stages.append(nn.SequentialCell(*cells))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Dense(channels, num_classes)

    def construct(self, x):
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        return self.fc(x.mean((2, 3)))


def plain_builder(depth):
    """The builder of `resnet<depth>`: a 3x3 convolution in each bottleneck."""

    def build(
        num_classes, image_size, in_channels, drop_path_rate, stem="imagenet", width=64, zero_init_residual=False
    ):
        spatial = partial(convolution, kernel=3)
        return ResNet(
            depth, spatial, num_classes, image_size, in_channels, drop_path_rate, stem, width, zero_init_residual
        )

    return build


def acmix_builder(depth, paths):
    """The builder of `acmix_resnet<depth>` (both paths) or `sasa_resnet<depth>` (attention alone)."""

    def build(
        num_classes,
        image_size,
        in_channels,
        drop_path_rate,
        stem="imagenet",
        width=64,
        zero_init_residual=False,
        kernel_att=7,
        heads=4,
        kernel_conv=3,
        paths=paths,
        shift="learnable",
    ):
        spatial = partial(ACmix, kernel_att=kernel_att, heads=heads, kernel_conv=kernel_conv, paths=paths, shift=shift)
        return ResNet(
            depth, spatial, num_classes, image_size, in_channels, drop_path_rate, stem, width, zero_init_residual
        )

    return build


for depth in BLOCKS:
    register_model(f"resnet{depth}", plain_builder(depth))
    register_model(f"acmix_resnet{depth}", acmix_builder(depth, "both"))
    register_model(f"sasa_resnet{depth}", acmix_builder(depth, "attention"))
