# SPDX-License-Identifier: Apache-2.0
"""An exported file used as its description says, whatever of the whole function is in it; never trusted."""

import contextlib
import textwrap
from pathlib import Path

import numpy as np

from src.deploy.card import card_path, read_card
from src.deploy.running.runtime import MindirModel, OnnxModel
from src.errors import UserError
from src.training.deployment import PROBABILITIES, results_of

# How loading fails, and the mend; a damaged file was refused before, so that the key is to blame.
_BAD_FILE = "cannot be loaded", "export again"
_BAD_KEY = "cannot be opened with this --key", "give the key it was exported with, or export again"
_ONNX_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int32)": "int32",
}


class ExportedModel:
    """A `.onnx` or `.mindir` file with its description beside it.

    Args:
        path: the file.
        device (str): where onnxruntime runs it; MindSpore's kind runs on the device that is set up.
        key (bytes): of an encrypted MindIR.
        threads (int): of onnxruntime on the CPU; 0: as many as there are cores.

    Attributes:
        card (dict): the description.
        batch_size (int | None): images it takes at once; None: any number.

    Raises:
        UserError: a file is missing, damaged, not what the description says or of the wrong kind, a key is missing or
            wrong, or onnxruntime cannot use the device.
    """

    def __init__(self, path, device="CPU", key=None, threads=0):
        self.path = path = Path(path)
        if path.suffix not in (".onnx", ".mindir"):
            raise UserError(f"--model {path} is of no known kind; it takes a .onnx or .mindir file")
        # A pipe would be waited for without an end.
        for part in (path, card_path(path)):
            if part.exists() and not part.is_file():
                raise UserError(f"model {part} is no file; give a .onnx or .mindir file with its .json beside it")
        self.card = read_card(path)
        self._check_key(key)
        with self._failing_in_one_line(*(_BAD_FILE if key is None else _BAD_KEY)):
            self._model = OnnxModel(path, device, threads) if path.suffix == ".onnx" else MindirModel(path, key)
            if path.suffix == ".onnx":
                self._check_signature(self._model.session)
        images = self.card["input"]
        self.batch_size = images["shape"][0] if isinstance(images["shape"][0], int) else None

    def results(self, images):
        """Return what the file gives, a list of arrays, float32 or int32, see `src.training.deployment.Deployment`.

        Of probabilities these are the logarithms, which do as well as logits.

        Args:
            images: normalised, float32 (B, C, H, W), or, where the description says so, pixels, uint8 (B, H, W, C).

        Raises:
            UserError: the file is not what its description says.
        """
        with self._failing_in_one_line("cannot be run"):
            results = self._model.results(images.astype(self.card["input"]["dtype"], copy=False))
        expected = results_of(self.card)
        if len(results) != len(expected):
            raise UserError(
                f"model {self.path} has {len(results)} outputs and {self.path.name}.json {len(expected)}; export again"
            )
        return [self._checked(result, one, images) for result, one in zip(results, expected)]

    def _checked(self, result, expected, images):
        shape = [len(images), *expected["shape"][1:]]
        if [*result.shape] != shape or result.dtype != expected["dtype"]:
            raise self._contradiction("output", [*result.shape], result.dtype, shape, expected["dtype"])
        if result.dtype.kind == "i":
            return result
        result = result.astype(np.float32)
        if not np.isfinite(result).all():
            raise UserError(f"model {self.path} gives {expected['name'] or 'logits'} that are not finite; export again")
        if expected["name"] == PROBABILITIES:
            return np.log(np.maximum(result, np.finfo(np.float32).tiny))
        return result

    def _check_key(self, key):
        is_encrypted = bool(self.card.get("encrypted"))
        if is_encrypted and key is None:
            raise UserError(f"model {self.path} is encrypted; give its key: --key KEY or --key @FILE")
        if key is not None and not is_encrypted:
            raise UserError(f"model {self.path} is not encrypted; leave --key out")

    def _check_signature(self, session):
        """Compare what goes into and comes out of an ONNX file with the description."""
        for what, values, described in (
            ("input", session.get_inputs(), [self.card["input"]]),
            ("output", session.get_outputs(), results_of(self.card)),
        ):
            names, expected = [value.name for value in values], [one["name"] for one in described]
            if names != expected:
                raise UserError(
                    f"model {self.path} has the {what}s {names}, but {self.path.name}.json says "
                    f"{', '.join(map(str, expected))}; export again"
                )
            for value, one in zip(values, described):
                kind, shape = _ONNX_TYPES.get(value.type, value.type), value.shape
                if [shape, kind] != [one["shape"], one["dtype"]]:
                    raise self._contradiction(what, shape, kind, one["shape"], one["dtype"])

    def _contradiction(self, what, shape, kind, expected_shape, expected_kind):
        return UserError(
            f"model {self.path} has an {what} of {kind} {shape}, but {self.path.name}.json says {expected_kind} "
            f"{expected_shape}; export again"
        )

    @contextlib.contextmanager
    def _failing_in_one_line(self, how, mend="export again"):
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # a library can raise anything on a file that is not what it seems
            lines = [line for line in str(error).splitlines() if any(map(str.isalnum, line))]
            reason = textwrap.shorten((lines or [type(error).__name__])[0].strip(" -."), 200, placeholder=" ...")
            raise UserError(f"model {self.path} {how} ({reason}); {mend}") from error
