# SPDX-License-Identifier: Apache-2.0
"""Set before MindSpore is imported: the CPU convolution kernels (README, "CPU") and the import path."""

import os
import sys
from pathlib import Path

os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
os.environ.setdefault("GLOG_v", "3")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
