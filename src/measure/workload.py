# SPDX-License-Identifier: Apache-2.0
"""One model ready to run on one batch: its forward pass or its training step, compiled."""

import os
import platform
import time

import mindspore as ms
import numpy as np
import onnx
import onnxruntime

from src.config import OptimizerConfig
from src.deploy.folding.fold import fold
from src.deploy.onnx.export import onnx_model
from src.deploy.options import Options
from src.deploy.serving import Serving
from src.device import World
from src.measure.setting import FOLDED
from src.measure.settled import settle
from src.models.complexity import count_multiply_adds, count_parameters
from src.tasks import config_of, create_task
from src.training.kernels import kernels_of
from src.training.memory import peak_memory_gb
from src.training.optimizer import create_optimizer
from src.training.precision import create_scaler, mixed_precision
from src.training.step import TrainStep

# Runs before the first timed one: the graph's kernels settle on their number of threads meanwhile.
WARM_UP = 8


class Workload:
    """The model of a setting, on the device that `setup_device` chose; `compile` comes before `run`.

    Args:
        setting (Setting): model and conditions.

    Raises:
        UserError: a model or an option that does not exist.
        ValueError: from `sizes` and `compile`, an image size that the model does not take.
    """

    def __init__(self, setting):
        ms.set_seed(0)
        self.setting = setting
        self.shape = (setting.batch_size, 3, *setting.image_size)
        self.task = create_task(config_of(setting.model, image_size=setting.image_size, options=setting.options))
        self.network = self.task.build()

    def sizes(self):
        """Return the parameters, and the multiply-adds of one image."""
        network = self.network.set_train(False)
        return count_parameters(network), count_multiply_adds(network, (1, *self.shape[1:]))

    def export(self, path):
        """Write the network as an ONNX file, folded if the setting says so, as `export.py` makes it."""
        settle(self.network, self.shape)
        network = fold(self.network) if self.setting.form == FOLDED else self.network
        images = np.zeros(self.shape, np.float32)
        onnx.save(onnx_model(lambda: Serving(network), images, Options(self.setting.batch_size)), path)

    def compile(self, phase, runs):
        """Make the graph of a phase; return the seconds that compiling and the first run took.

        Args:
            phase (str): "forward", in evaluation mode, or "train", a step of SGD with momentum.
            runs (int): how many runs will follow: the optimiser has a learning rate for each step.
        """
        network = mixed_precision(self.network, self.setting.amp_level, self.setting.amp_dtype)
        # Parameters lie on the device; tensors made from NumPy would be copied there at every call.
        batch = tuple(ms.Parameter(part, requires_grad=False) for part in self.task.made_up(self.shape[0]))
        if phase == "forward":
            self.cell, self.inputs = network.set_train(False), batch[:1]
        else:
            rates = np.full(1 + WARM_UP + runs, 1e-3, np.float32)
            optimizer = create_optimizer(network, OptimizerConfig(), rates)
            scaler = create_scaler(self.setting.device)
            self.cell = TrainStep(network, self.task.loss(self.network), optimizer, World(), scaler)
            self.inputs = batch
        start = time.perf_counter()
        with kernels_of(self.setting.device):
            self.run()
        return time.perf_counter() - start

    def warm_up(self):
        """Run until runs take what they take."""
        self.times(WARM_UP)

    def run(self):
        """Run once, and wait for the result on every device."""
        output = self.cell(*self.inputs)
        (output if isinstance(output, ms.Tensor) else output[0]).asnumpy()

    def times(self, runs):
        """Return the seconds that each of `runs` runs took."""
        series = []
        for _ in range(runs):
            start = time.perf_counter()
            self.run()
            series.append(time.perf_counter() - start)
        return series

    def peak_gb(self):
        """Return the peak memory so far in GB, see `peak_memory_gb`."""
        return peak_memory_gb(self.setting.device_target)

    def versions(self):
        """Return what the figures depend on besides the machine."""
        return {
            "mindspore": ms.__version__,
            "onnxruntime": onnxruntime.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "onednn_max_cpu_isa": os.environ["ONEDNN_MAX_CPU_ISA"],
        }
