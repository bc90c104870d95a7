# SPDX-License-Identifier: Apache-2.0
"""Fair timing of several models: each in a process of its own, taking turns.

The peak memory of a process is then that of its model, and what else the machine does falls on all models alike.
"""

import dataclasses
import multiprocessing
import statistics
import tempfile
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from itertools import zip_longest

from src.errors import UserError
from src.measure.machine import machine


def measure(settings, phases, rounds, runs):
    """Time the models of `settings` side by side.

    Args:
        settings (list): a `Setting` for each model.
        phases (sequence): of "forward" and "train"; one after the other.
        rounds (int): turns of each model.
        runs (int): timed runs in a turn.

    Returns:
        list: a record for each setting, as `src.measure.records` describes them.

    Raises:
        UserError: what a setting asks for does not exist, or its process did not survive.
    """
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    here = machine()
    records = [
        {"time": now, **dataclasses.asdict(setting), "rounds": rounds, "runs": runs, "machine": dict(here)}
        for setting in settings
    ]
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{folder}/{i}.onnx" if setting.is_file else None for i, setting in enumerate(settings)]
        # In processes of their own too: counting and exporting take memory.
        with _workers(settings) as workers:
            for record, worker, file in zip(records, workers, files):
                record["parameters"], record["multiply_adds"] = worker.ask("sizes")
                record["machine"] |= worker.ask("versions")
                if file:
                    worker.ask("export", file)
        for phase in phases:
            # The first time with nobody else's memory held: what a virtual machine has to fetch for the first time can
            # take a third longer. The less of the two counts.
            alone = [_compiled(setting, file, phase) for setting, file in zip_longest(settings, files)]
            with _workers(settings, files) as workers:
                together = [worker.ask("compile", phase, rounds * runs) for worker in workers]
                for worker in workers:
                    worker.ask("warm_up")
                times = [[] for _ in workers]
                for _ in range(rounds):
                    for worker, series in zip(workers, times):
                        series += worker.ask("times", runs)
                for record, worker, series, seconds in zip(records, workers, times, map(min, alone, together)):
                    figures = {"compile_s": seconds, "peak_gb": worker.ask("peak_gb")}
                    record[phase] = per_image(series, record["batch_size"]) | figures
    return records


def per_image(series, batch_size):
    """Return median and quartiles of a batch's seconds, as milliseconds an image."""
    quartiles = statistics.quantiles(series, n=4, method="inclusive") if len(series) > 1 else series * 3
    low, middle, high = (1e3 * seconds / batch_size for seconds in quartiles)
    return {"ms_per_image": middle, "ms_per_image_q1": low, "ms_per_image_q3": high}


def _compiled(setting, file, phase):
    """Return the seconds that compiling took in a process that ends with it."""
    with _Worker(setting, file) as worker:
        return worker.ask("compile", phase, 0)


@contextmanager
def _workers(settings, files=()):
    """Yield a process for each setting, which runs the file of the same place, if any; they end with the block."""
    with ExitStack() as stack:
        yield [stack.enter_context(_Worker(*pair)) for pair in zip_longest(settings, files)]


class _Worker:
    """A process that holds a `Workload`, or with a file a `FileWorkload`, and answers its methods."""

    def __init__(self, setting, file):
        self.model = setting.model
        context = multiprocessing.get_context("spawn")
        self.pipe, far_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(far_end, setting, file), daemon=True)
        self.process.start()
        far_end.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.join()

    def ask(self, method, *arguments):
        try:
            self.pipe.send((method, arguments))
            error, value = self.pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError) as ended:
            raise UserError(f"the process of {self.model} ended early; too little memory for its batch?") from ended
        if error:
            raise UserError(error)
        return value


def _serve(pipe, setting, file):
    """In the worker's process: answer (None, value), or (message, None) for what the user can mend."""
    try:
        workload = _of_file(setting, file) if file else _of_network(setting)
        while True:
            method, arguments = pipe.recv()
            pipe.send((None, getattr(workload, method)(*arguments)))
    except UserError as error:
        pipe.send((str(error), None))
    except ValueError as error:
        # MindSpore appends pages about the place in the graph.
        pipe.send((f"{setting.model}: {str(error).strip().splitlines()[0]}", None))


def _of_network(setting):
    # Here, not in the parent, MindSpore is loaded; src.device has to be the first to load it.
    from src.device import setup_device

    setup_device(setting.device)

    from src.measure.workload import Workload

    return Workload(setting)


def _of_file(setting, file):
    # Without MindSpore, whose memory is none of the file's.
    from src.measure.file_workload import FileWorkload

    return FileWorkload(setting, file)
