# SPDX-License-Identifier: Apache-2.0
"""An exported file ready to run on one batch in onnxruntime, on as many threads as there are cores."""

import resource
import time

import numpy as np
import onnxruntime

from src.measure.machine import cores

# Runs before the first timed one.
WARM_UP = 4


class FileWorkload:
    """The ONNX file of a setting; answers as `Workload` does, and loads no MindSpore.

    Args:
        setting (Setting): its batch and image size are the file's.
        file (str): path.
    """

    def __init__(self, setting, file):
        self.file = file
        shape = (setting.batch_size, 3, *setting.image_size)
        self.images = np.random.default_rng(0).standard_normal(shape, np.float32)

    def compile(self, phase, runs):
        """Load the file; return the seconds that loading and the first run took."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cores()
        start = time.perf_counter()
        self.session = onnxruntime.InferenceSession(self.file, options, providers=["CPUExecutionProvider"])
        self.name = self.session.get_inputs()[0].name
        self.times(1)
        return time.perf_counter() - start

    def warm_up(self):
        """Run until runs take what they take."""
        self.times(WARM_UP)

    def times(self, runs):
        """Return the seconds that each of `runs` runs took."""
        series = []
        for _ in range(runs):
            start = time.perf_counter()
            self.session.run(None, {self.name: self.images})
            series.append(time.perf_counter() - start)
        return series

    def peak_gb(self):
        """Return the peak memory of the process so far in GB."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
