# SPDX-License-Identifier: Apache-2.0
"""ResNet-26/38/50 with a plain 3x3 convolution, with ACmix in its place, or with self-attention alone.

The bottleneck is that of He et al. 2016 with the stride on its middle operator (ResNet v1.5), the only thing in which
the three differ. ResNet-26 and -38 are the shallower stacks of Ramachandran et al. 2019 (stand-alone self-attention).
"""

from mindspore import nn, ops
from mindspore.common.initializer import HeNormal

from src.models.backbone import Backbone
from src.models.checks import check_depths, check_whole, first_stride
from src.models.registry import register_model
from src.ops.acmix import ACmix
from src.ops.drop_path import DropPath, drop_path_rates

BLOCKS = {26: (1, 2, 4, 1), 38: (2, 3, 5, 2), 50: (3, 4, 6, 3)}
EXPANSION = 4
STEMS = {"imagenet": 4, "small": 1}  # name: by how much it shrinks the image


def convolution(in_channels, out_channels, kernel=1, stride=1):
    """A convolution without bias, padded to give ceil(size / stride)."""
    weight = HeNormal(mode="fan_out", nonlinearity="relu")
    return nn.Conv2d(in_channels, out_channels, kernel, stride, pad_mode="pad", padding=kernel // 2, weight_init=weight)


def convolution_3x3(in_channels, out_channels, stride):
    """What ACmix takes the place of."""
    return convolution(in_channels, out_channels, 3, stride)


class ImageNetStem(nn.Cell):
    """7x7/2 convolution, norm, ReLU, 3x3/2 max pool: (B, in, H, W) -> (B, C, H/4, W/4)."""

    def __init__(self, in_channels, channels):
        super().__init__()
        self.conv = convolution(in_channels, channels, 7, 2)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(3, 2, pad_mode="valid")

    def construct(self, x):
        return self.pool(self.bordered(self.relu(self.bn(self.conv(x)))))

    def bordered(self, x):
        """Put zeros where the 3x3/2 max pool reaches out: above and to the left, and beyond odd ends.

        Zeros never win after a ReLU, so this equals a padded max pool, which ONNX export does not have. Joining them on
        takes a tenth of the time of `Pad` on CPU.
        """
        row = ops.zeros_like(x[:, :, :1])
        x = ops.concat((row, x, row) if x.shape[2] % 2 else (row, x), 2)
        column = ops.zeros_like(x[:, :, :, :1])
        return ops.concat((column, x, column) if x.shape[3] % 2 else (column, x), 3)


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
        self.conv2 = spatial(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = convolution(width, out_channels)
        self.bn3 = nn.BatchNorm2d(out_channels, gamma_init="zeros" if zero_init_residual else "ones")
        self.relu = nn.ReLU()
        # Not `+`: the GPU backend fuses norm, Add and ReLU into a kernel whose float16 gradient is NaN.
        self.add = ops.AddN()
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
        out = self.drop_path(out)
        # AddN takes one type; mixed precision can give two.
        return self.relu(self.add((out, self.downsample(x).astype(out.dtype))))


class ResNet(Backbone):
    """A stem, four stages of bottlenecks, global average pooling and a linear head.

    Args:
        spatial: `spatial(in_channels, out_channels, stride)` makes the middle operator of a bottleneck.
        depths (sequence): bottlenecks of each stage.
        stem (str): "imagenet" (shrinks by 4) or "small" (keeps the size).
        width (int): channels of the stem and of the first stage's bottlenecks; 64 in the paper.
        zero_init_residual (bool): start each block as its shortcut, by a zero scale of its last norm.

    Raises:
        ValueError: an unknown stem, a number below 1, a width the operator cannot take, or an image smaller than the
            total stride.
    """

    def __init__(
        self,
        spatial,
        num_classes,
        image_size,
        in_channels,
        drop_path_rate,
        features_only,
        *,
        depths,
        stem="imagenet",
        width=64,
        zero_init_residual=False,
    ):
        check_depths(depths, 4)
        check_whole(width=width)
        stride = first_stride(stem, STEMS, image_size)
        super().__init__([(width << stage) * EXPANSION for stage in range(4)], stride, features_only)
        rates = iter(drop_path_rates(drop_path_rate, sum(depths)))
        self.stem = (ImageNetStem if stem == "imagenet" else SmallStem)(in_channels, width)
        channels, stages = width, []
        for stage, depth in enumerate(depths):
            cells = []
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                cells.append(Bottleneck(channels, width << stage, stride, spatial, next(rates), zero_init_residual))
                channels = (width << stage) * EXPANSION
            stages.append(nn.SequentialCell(*cells))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        if not features_only:
            self.fc = nn.Dense(channels, num_classes)

    def construct(self, x):
        x1 = self.layer1(self.stem(x))
        x2 = self.layer2(x1)
        x3 = self.layer3(x2)
        x4 = self.layer4(x3)
        if self.features_only:
            return x1, x2, x3, x4
        return self.fc(x4.mean((2, 3)))

    def layers(self):
        stages = self.layer1, self.layer2, self.layer3, self.layer4
        return ((self.stem,), *((block,) for stage in stages for block in stage), (self.fc,))


for layers, depths in BLOCKS.items():
    register_model(f"resnet{layers}", ResNet, convolution_3x3, depths=depths)
    register_model(f"acmix_resnet{layers}", ResNet, ACmix, depths=depths)
    register_model(f"sasa_resnet{layers}", ResNet, ACmix, depths=depths, paths="attention")

_BATCH_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}

# How the published code (and torchvision) calls our parameters; see `src.models.published`.
PUBLISHED = (
    (r"^stem\.(conv|bn)\.", r"\g<1>1."),
    (r"((?:bn\d|downsample\.1)\.)(gamma|beta|moving_mean|moving_variance)$", lambda m: m[1] + _BATCH_NORM[m[2]]),
    (r"\.alpha$", ".rate1"),
    (r"\.beta$", ".rate2"),
    (r"\.attention\.position\.weight$", ".conv_p.weight:conv1x1"),
    (r"\.attention\.position\.bias$", ".conv_p.bias"),
    (r"\.convolution\.fc\.", ".fc."),
    (r"\.convolution\.shift\.", ".dep_conv."),
    (r"^(.*\.)qkv(\..*)$", r"\1conv1\2|\1conv2\2|\1conv3\2"),
)
