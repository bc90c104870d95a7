# SPDX-License-Identifier: Apache-2.0
"""Set before MindSpore is imported: the CPU convolution kernels (README, "Environment requirements"), import path."""

import os
import sys
from pathlib import Path

from hypothesis import settings

os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
os.environ.setdefault("GLOG_v", "3")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# Graphs are compiled inside of properties, and machines are shared: how long an example takes says nothing.
settings.register_profile("patient", parent=settings(), deadline=None)
settings.load_profile("patient")
