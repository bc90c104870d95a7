# SPDX-License-Identifier: Apache-2.0
"""Whether CANN's converter `atc`, which makes OM files for Ascend, has the operators of an ONNX model."""

import functools
import json
from pathlib import Path

_LIST = Path(__file__).with_name("atc_operators.json")


@functools.cache
def atc_operators():
    """Return the ONNX operators that CANN registers, as a dict: name -> set of opset versions."""
    opsets = {}
    for text, names in json.loads(_LIST.read_text(encoding="utf-8"))["operators"].items():
        spans = [[int(end) for end in span.split("-")] for span in text.split()]
        versions = {version for span in spans for version in range(span[0], span[-1] + 1)}
        opsets.update(dict.fromkeys(names, versions))
    return opsets


def atc_refusals(model):
    """Return why `atc` does not read an ONNX model, a few words for each reason; [] where nothing is known against it.

    By the list of its operators alone: `atc` itself is not run, and may refuse an attribute or a shape.

    Args:
        model (onnx.ModelProto): any.
    """
    registered = atc_operators()
    newest = max(max(versions) for versions in registered.values())
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    used = sorted({node.op_type for node in model.graph.node})
    refusals = [f"{name} is not among its operators" for name in used if name not in registered]
    if opset > newest:
        return [f"opset {opset} is above {newest}", *refusals]
    known = [name for name in used if name in registered]
    return refusals + [f"{name} is not there for opset {opset}" for name in known if opset not in registered[name]]
