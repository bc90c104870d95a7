# SPDX-License-Identifier: Apache-2.0
"""Which operators a graph runs on CPU, how long each takes and how much it reads, from MindSpore's profiler."""

import logging
import math
import re
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from mindspore import profiler

from src.errors import UserError

FLOAT_BYTES = 4


class Operator(NamedTuple):
    """One operator of a graph.

    Attributes:
        scope: the names of the Cells it is in, as "Default/network-ResNet/layer1-SequentialCell/0-Bottleneck".
        kind: as "Conv2D".
        calls: how often it ran.
        ms: median time of a call.
        bytes: size of its input tensors, taken as float32.
    """

    scope: str
    kind: str
    calls: int
    ms: float
    bytes: int


class Share(NamedTuple):
    """Operators of one name together, per run of the graph: how many, their time, and what they read."""

    name: str
    calls: float
    ms: float
    bytes: float


def profile(run, runs):
    """Call `run()` `runs` times under the profiler; return the graph's operators as a list of `Operator`.

    Operators run one after the other on CPU, each on all threads.

    Raises:
        UserError: this MindSpore's profiler does not write what 2.10's does.
    """
    with tempfile.TemporaryDirectory() as folder:
        logging.disable(logging.WARNING)  # it would have steps marked, for pauses that are not wanted here
        try:
            recorder = profiler.profile(
                activities=[profiler.ProfilerActivity.CPU],
                on_trace_ready=profiler.tensorboard_trace_handler(folder, analyse_flag=False),
            )
            for _ in range(runs):
                run()
            recorder.stop()
        finally:
            logging.disable(logging.NOTSET)
        times, shapes = (
            "".join(path.read_text() for path in sorted(Path(folder).rglob(f"{name}_*.txt")))
            for name in ("cpu_op_execute_timestamp", "cpu_framework")
        )
    return parse(times, shapes)


def parse(times, shapes):
    """Join the two texts that the profiler writes.

    Args:
        times: a line for each operator of the graph, "scope/kind-opN;HostCpuOps;" and for each of its runs
            "start,ms,0 " with the start in ns.
        shapes: a line for each operator run, in order, "kind;kind-opN;thread;input_1:[2, 3];input_2:NoShape;".
    """
    calls = defaultdict(list)
    for line in times.splitlines():
        name, _, series = line.split(";", 2)
        for call in series.split():
            start, ms, _ = call.split(",")
            calls[name].append((int(start), float(ms)))
    in_order = [name for _, name in sorted((start, name) for name, series in calls.items() for start, _ in series)]
    inputs = [line.split(";", 3) for line in shapes.splitlines()]
    if not calls or [name.rpartition("/")[2] for name in in_order] != [fields[1] for fields in inputs]:
        raise UserError("the profiler of this MindSpore does not list operators as 2.10 does; install mindspore 2.10.0")
    operators = []
    for name, (kind, _, _, shape) in dict(zip(in_order, inputs)).items():
        ms = statistics.median(ms for _, ms in calls[name])
        operators.append(Operator(name.rpartition("/")[0], kind, len(calls[name]), ms, _input_bytes(shape)))
    return operators


def _input_bytes(shapes):
    sides = re.findall(r"input_\d+:\[([\d, ]*)\]", shapes)
    return FLOAT_BYTES * sum(math.prod(int(side) for side in text.split(",") if side.strip()) for text in sides)


def group(operators, by, runs):
    """Add up operators by "operator", "cell" or "both"; return a list of `Share`, longest first."""
    name_of = {"operator": lambda operator: operator.kind, "cell": cell_name, "both": _full_name}[by]
    groups = defaultdict(list)
    for operator in operators:
        groups[name_of(operator)].append(operator)
    shares = [
        Share(
            name,
            sum(operator.calls for operator in part) / runs,
            sum(operator.calls * operator.ms for operator in part) / runs,
            sum(operator.calls * operator.bytes for operator in part) / runs,
        )
        for name, part in groups.items()
    ]
    return sorted(shares, key=lambda share: -share.ms)


def cell_name(operator):
    """Name an operator's place in a block, the same for all blocks: "Bottleneck.conv2.attention.gather".

    The compiler builds the gradient of equal operators once and names it after the first Cell that has one; what it
    expands itself has lost its Cell. Both are named by their operator. Functions such as `x.transpose` are built once
    too, so forward operators of that kind can be listed under another Cell than theirs.
    """
    if operator.scope.startswith("Gradients/"):
        return f"gradient: {operator.kind}"
    if not operator.scope.startswith("Default"):
        return f"no Cell: {operator.kind}"
    cells = [cell.rpartition("-") for cell in operator.scope.split("/")[1:]]
    cells = [(name or kind, kind) for name, _, kind in cells if name != "network"]
    numbered = [place for place, (name, _) in enumerate(cells) if name.isdigit()]
    if numbered:
        block = numbered[0]
        return ".".join([cells[block][1], *(name for name, _ in cells[block + 1 :])])
    return ".".join(name for name, _ in cells) or "network"


def _full_name(operator):
    cell = cell_name(operator)
    return cell if cell.endswith(f": {operator.kind}") else f"{cell}: {operator.kind}"
