# SPDX-License-Identifier: Apache-2.0
"""What is measured: a model with its options, and the conditions it runs under."""

import dataclasses
import re

from src.config import DeviceConfig, ModelConfig
from src.errors import UserError
from src.yaml_file import parse_yaml

PHASES = ("forward", "train")
NETWORK, PORTABLE, UNFOLDED, FOLDED = "network", "portable", "ONNX, unfolded", "ONNX, folded"
# `device.kernels`, or both in turns: the forms of a network.
KERNELS = {"auto": (NETWORK,), "portable": (PORTABLE,), "both": (PORTABLE, NETWORK)}
# Runtime: the forms in which it runs a model.
FORMS = {"mindspore": (NETWORK,), "onnxruntime": (UNFOLDED, FOLDED)}
PHASES_OF = {"mindspore": PHASES, "onnxruntime": PHASES[:1]}
SWEPT = ("image_size", "batch_size")
DEVICE_RULES = {field.name: field.metadata["rule"] for field in dataclasses.fields(DeviceConfig)}


@dataclasses.dataclass(frozen=True)
class Setting:
    """`image_size` is (height, width) in pixels, `options` are further arguments of `create_model`.

    `form` is what runs: the network in MindSpore, by fused kernels where it can or portable, or an exported file in
    onnxruntime, on CPU in float32.
    """

    model: str
    options: dict
    batch_size: int
    image_size: tuple
    amp_level: str
    amp_dtype: str
    device_target: str
    form: str = NETWORK

    @property
    def device(self):
        kernels = "auto" if self.form == NETWORK else "portable"
        return DeviceConfig(
            target=self.device_target, amp_level=self.amp_level, amp_dtype=self.amp_dtype, kernels=kernels
        )

    @property
    def is_file(self):
        return self.form in FORMS["onnxruntime"]

    @property
    def precision(self):
        """What the model computes in: "float32", or the level and type of mixed precision."""
        return "float32" if self.amp_level == "O0" else f"{self.amp_level} {self.amp_dtype}"

    @property
    def label(self):
        """Model, form and options as tables name them."""
        options = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{self.name} ({options})" if options else self.name

    @property
    def name(self):
        """Model and form as legends name them."""
        return self.model if self.form == NETWORK else f"{self.model}, {self.form}"


def add_setting_arguments(parser, batch_size):
    """Add the options that both measuring scripts take; `batch_size` is the default of `--batch_size`."""
    parser.add_argument("--batch_size", default=str(batch_size), metavar="N", help=f"images; default {batch_size}")
    parser.add_argument(
        "--image_size", default="224", metavar="S|HxW", help="pixels, of a square or height x width; default 224"
    )
    parser.add_argument("--options", default="{}", metavar="YAML", help="of the models, as '{stem: small, width: 16}'")


def parse_options(text):
    """Return the mapping of `--options`; `UserError` for what is none, or names what is no option of a model."""
    options = parse_yaml(text, "--options")
    if not isinstance(options, dict) or not all(isinstance(name, str) for name in options):
        raise UserError(f"--options takes a mapping such as '{{stem: small, width: 16}}', got {text!r}")
    for field in dataclasses.fields(ModelConfig):
        if field.name in options:
            raise UserError(f"--options: {field.name} is no option of a model; leave it out")
    return options


def parse_batch_size(text, flag="--batch_size"):
    """Return the whole number that `text` says."""
    if not re.fullmatch("0*[1-9][0-9]*", text):
        raise UserError(f"{flag} takes a whole number from 1, got {text!r}")
    return int(text)


def parse_image_size(text, flag="--image_size"):
    """Return (height, width) of "224" or "800x1333"."""
    if not re.fullmatch("0*[1-9][0-9]*(x0*[1-9][0-9]*)?", text):
        raise UserError(f"{flag} takes pixels, as 224, or height x width, as 800x1333, got {text!r}")
    height, _, width = text.partition("x")
    return int(height), int(width or height)


def parse_sweep(text):
    """Return (key, values) of `--sweep image_size=112,224`."""
    key, _, values = text.partition("=")
    if key not in SWEPT or not values:
        raise UserError(f"--sweep takes image_size=112,224,448 or batch_size=1,2,4, got {text!r}")
    parse = parse_image_size if key == "image_size" else parse_batch_size
    values = [parse(value.strip(), f"--sweep {key}") for value in values.split(",")]
    if len(set(values)) != len(values):
        raise UserError(f"--sweep {key} names a value twice: {text!r}")
    return key, values


def size_text(image_size):
    """Return "224 x 224" for (224, 224)."""
    return " x ".join(map(str, image_size))
