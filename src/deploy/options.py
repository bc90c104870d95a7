# SPDX-License-Identifier: Apache-2.0
"""What an exported file is to be, and which wishes contradict each other."""

from dataclasses import dataclass, field

from src.errors import UserError, did_you_mean
from src.training.deployment import CLASSES, PROBABILITIES, RAW

FORMATS = ("mindir", "onnx", "air")
# What older deployment tools read; LayerNormalization as one operator; GELU too.
OPSETS = (11, 17, 20)
DTYPES = ("float32", "float16")
# Largest difference from the network's result, as a part of the largest number in it.
_TOLERANCES = {"float32": 1e-4, "float16": 1e-2}
# float16 needs a LayerNormalization that computes in float32 inside, int8 scales for each channel.
SMALL_OPSET = 17


@dataclass(frozen=True)
class Options:
    """How files are exported; what the command line says is checked by `check_options`.

    Attributes:
        batch_size (int | None): images that a file takes at once; None: any number.
        opset (int | None): of ONNX, one of `OPSETS`; None: 11, and 17 for float16 and int8.
        dtype (str): of weights, arithmetic, input and output, one of `DTYPES`.
        quantize (str): "" or "int8", convolutions and linear layers in integers.
        calibration_dir (str): images that tell `quantize` which values occur.
        fold (bool): fold norms and what else is constant into the weights.
        softmax (bool): give probabilities instead of logits.
        argmax (bool): give the class instead of logits.
        raw (bool): leave out the selection of a detector's answers.
        preprocess (bool): take pixels, uint8 (B, H, W, C), and normalise them.
        key (bytes | None): encrypts MindIR.
    """

    batch_size: int | None = 1
    opset: int | None = None
    dtype: str = "float32"
    quantize: str = ""
    calibration_dir: str = ""
    fold: bool = True
    softmax: bool = False
    argmax: bool = False
    raw: bool = False
    preprocess: bool = False
    key: bytes | None = field(default=None, repr=False)

    @property
    def onnx_opset(self):
        return self.opset or (SMALL_OPSET if self.is_small else OPSETS[0])

    @property
    def wished(self):
        """The form of the file that is wished for: {option: form}, empty where it is the usual one of its task."""
        forms = {"softmax": PROBABILITIES, "argmax": CLASSES, "raw": RAW}
        return {option: form for option, form in forms.items() if getattr(self, option)}

    def form(self, outputs):
        """Return which of `outputs`, those of a `Deployment`, the file has."""
        return next(iter(self.wished.values()), outputs[0])

    @property
    def tolerance(self):
        """How far a file may be from the network, see `src.deploy.proof`; None: int8 is judged by its accuracy."""
        return None if self.quantize else _TOLERANCES[self.dtype]

    @property
    def is_small(self):
        """Whether numbers have fewer than 32 bits."""
        return self.dtype != "float32" or bool(self.quantize)

    def file_name(self, model, kind):
        """Return `<model>_<S or HxW>_b<batch>[_pixels][_<wished>][_fp16|_int8].<kind>` for a `ModelConfig`."""
        parts = [model.title, size_text(model.size), f"b{self.batch_size or 'N'}"]
        parts += ["pixels"] * self.preprocess + [*self.wished]
        parts += ["fp16"] * (self.dtype == "float16") + [self.quantize] * bool(self.quantize)
        return f"{'_'.join(parts)}.{kind}"


def size_text(size):
    """Return (H, W) as "HxW", and a square as "H"."""
    return "x".join(map(str, size if size[0] != size[1] else size[:1]))


def check_options(formats, options, target, deployment):
    """Refuse what is unknown, what cannot be made on the device `target`, and wishes that contradict each other.

    Args:
        deployment (type): the `Deployment` of the task.

    Raises:
        UserError: names the options.
    """
    for kind in formats:
        if kind not in FORMATS:
            raise UserError(
                f"--format '{kind}' is unknown; it takes some of {', '.join(FORMATS)}{did_you_mean(kind, FORMATS)}"
            )
    for refused, message in (
        (
            "air" in formats and target != "Ascend",
            f"AIR is made by MindSpore on an Ascend device, and this is {target}; leave air out of --format, or export "
            "there with --device_target Ascend",
        ),
        (
            options.batch_size is not None and options.batch_size < 1,
            f"--batch_size is {options.batch_size} but takes at least 1",
        ),
        (
            options.batch_size is None and formats != ["onnx"],
            "--dynamic_batch is for ONNX; give --format onnx, and others with a --batch_size",
        ),
        (
            options.opset not in (None, *OPSETS),
            f"--opset {options.opset} is not written here; it takes one of {', '.join(map(str, OPSETS))}",
        ),
        (options.opset is not None and "onnx" not in formats, "--opset is for ONNX, which --format does not name"),
        (
            options.onnx_opset < SMALL_OPSET and options.is_small,
            f"--opset {options.onnx_opset} has no operators for --dtype float16 and --quantize int8; they need "
            f"{SMALL_OPSET} or more",
        ),
        (
            bool(options.quantize) != bool(options.calibration_dir),
            "--quantize int8 and --calibration_dir FOLDER go together: the images tell which values occur",
        ),
        (options.quantize and formats != ["onnx"], "--quantize is for ONNX; give --format onnx"),
        (
            options.quantize and options.dtype != "float32",
            "--quantize int8 and --dtype float16 contradict each other; what is not int8 stays float32",
        ),
        (
            len(options.wished) > 1,
            f"{' and '.join(f'--{wish}' for wish in options.wished)} contradict each other; leave one of them out",
        ),
        *(
            (
                form not in deployment.outputs,
                f"--{option} gives {form}, and files of this task give {' or '.join(deployment.outputs)}; leave it out",
            )
            for option, form in options.wished.items()
        ),
        *(
            (kind in (options.dtype, options.quantize), f"{kind} is not for files of this task: {reason}")
            for kind, reason in deployment.refused.items()
        ),
        (options.key and formats != ["mindir"], "--key encrypts MindIR only; give --format mindir"),
    ):
        if refused:
            raise UserError(message)
