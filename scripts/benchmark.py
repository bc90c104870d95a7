# SPDX-License-Identifier: Apache-2.0
"""Measure models side by side: size, multiply-adds, compile time, time per image, peak memory.

    python scripts/benchmark.py resnet26 acmix_resnet26 --batch_size 8 --json benchmark.json

Each model lives in a process of its own, so that its peak memory is its own. They take turns, a few runs at a time, so
that what else the machine does falls on all of them alike; a figure is the median of its runs.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.errors import UserError, entry_point

# Runs before the first timed one: the graph's kernels settle on their number of threads meanwhile.
WARM_UP = 8


def main():
    args = parse_arguments()
    if args.json and not Path(args.json).resolve().parent.is_dir():
        raise UserError(f"the folder of --json {args.json} does not exist; make it first")
    results = []
    for phase in ("forward", "train"):
        results.append(measure_phase(phase, args))
    rows = [{**forward, **train} for forward, train in zip(*results)]
    report = {"machine": machine(), "settings": vars(args), "models": rows}
    print(table(rows))
    if args.json:
        Path(args.json).write_text(json.dumps(report, indent=2) + "\n")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="+", help="names of create_model; the first is what the ratios refer to")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--device_target", choices=("CPU", "GPU", "Ascend"), default="CPU")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each model")
    parser.add_argument("--runs", type=int, default=4, help="timed runs in a turn")
    parser.add_argument("--json", help="file for the results")
    args = parser.parse_args()
    for name in ("batch_size", "image_size", "rounds", "runs"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} must be at least 1, got {getattr(args, name)}")
    return args


def measure_phase(phase, args):
    """Time one phase of all models in turns; return a dict of figures for each."""
    context = multiprocessing.get_context("spawn")
    workers = []
    for name in args.models:
        pipe, far_end = context.Pipe()
        process = context.Process(target=work, args=(far_end, phase, name, args), daemon=True)
        process.start()
        far_end.close()
        workers.append((pipe, process))
    figures = [receive(pipe, name) for (pipe, _), name in zip(workers, args.models)]
    times = [[] for _ in workers]
    for _ in range(args.rounds):
        for (pipe, _), name, series in zip(workers, args.models, times):
            pipe.send("run")
            series += receive(pipe, name)
    for (pipe, process), name, series, figure in zip(workers, args.models, times, figures):
        pipe.send("stop")
        peak = receive(pipe, name)
        process.join()
        figure[f"{phase}_ms_per_image"] = 1e3 * statistics.median(series) / args.batch_size
        figure[f"{phase}_peak_gb"] = peak
    return figures


def receive(pipe, name):
    try:
        answer = pipe.recv()
    except EOFError as error:
        raise UserError(f"the process of {name} ended early; too little memory for its batch?") from error
    if isinstance(answer, str):
        raise UserError(f"{name}: {answer}")
    return answer


def work(pipe, phase, name, args):
    """In a process of its own: build and compile one model, then time runs when asked; errors go back as a string."""
    try:
        figures, run = prepare(phase, name, args)
    except (UserError, ValueError) as error:
        pipe.send(str(error))
        return
    pipe.send(figures)
    while pipe.recv() == "run":
        series = []
        for _ in range(args.runs):
            start = time.perf_counter()
            run()
            series.append(time.perf_counter() - start)
        pipe.send(series)
    pipe.send(peak_memory(args.device_target))


def prepare(phase, name, args):
    """Return ({figures known before timing}, a function that runs the phase once and waits for it)."""
    from src.config import DeviceConfig, OptimizerConfig
    from src.device import World, setup_device  # before mindspore: it sets the environment

    setup_device(DeviceConfig(target=args.device_target))

    import mindspore as ms
    import numpy as np

    from src.models import create_model
    from src.models.complexity import count_multiply_adds, count_parameters
    from src.training.optimizer import create_optimizer
    from src.training.step import TrainStep

    ms.set_seed(0)
    network = create_model(name, image_size=args.image_size)
    shape = (args.batch_size, 3, args.image_size, args.image_size)
    # Parameters lie on the device; tensors made from NumPy would be copied there at every call.
    image = ms.Parameter(np.random.default_rng(0).standard_normal(shape).astype(np.float32), requires_grad=False)
    label = ms.Parameter(np.arange(args.batch_size, dtype=np.int32), requires_grad=False)
    figures = {}
    if phase == "forward":
        figures["model"] = name
        figures["parameters"] = count_parameters(network)
        network.set_train(False)
        figures["multiply_adds"] = count_multiply_adds(network, (1, *shape[1:]))
        cell, inputs = network, (image,)
    else:
        steps = 1 + WARM_UP + args.rounds * args.runs
        optimizer = create_optimizer(network, OptimizerConfig(), np.full(steps, 1e-3, np.float32))
        cell, inputs = TrainStep(network, ms.nn.CrossEntropyLoss(), optimizer, World()), (image, label)

    def run():
        cell(*inputs).asnumpy()  # waits for the result on every device

    start = time.perf_counter()
    run()
    figures[f"{phase}_compile_s"] = time.perf_counter() - start
    for _ in range(WARM_UP):
        run()
    return figures, run


def peak_memory(device_target):
    """Peak memory in GB: of the process on CPU, of the device elsewhere."""
    if device_target == "CPU":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    import mindspore as ms

    return ms.runtime.max_memory_allocated() / 1e9


def machine():
    import mindspore as ms

    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "mindspore": ms.__version__,
        "load_average": os.getloadavg()[0],
    }


def table(rows):
    """Lay the rows out as text; each time and peak with its ratio to the first model's."""
    head = ("model", "params M", "MACs G", "compile s", "forward ms/img", "train ms/img", "forward GB", "train GB")
    lines = []
    for row in rows:

        def with_ratio(key, row=row):
            return f"{row[key]:.2f} ({row[key] / rows[0][key]:.2f}x)"

        lines.append(
            (
                row["model"],
                f"{row['parameters'] / 1e6:.2f}",
                f"{row['multiply_adds'] / 1e9:.2f}",
                f"{row['forward_compile_s']:.0f} / {row['train_compile_s']:.0f}",
                with_ratio("forward_ms_per_image"),
                with_ratio("train_ms_per_image"),
                with_ratio("forward_peak_gb"),
                with_ratio("train_peak_gb"),
            )
        )
    widths = [max(len(cell) for cell in column) for column in zip(head, *lines)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)) for line in (head, *lines))


if __name__ == "__main__":
    entry_point(main)()
