# SPDX-License-Identifier: Apache-2.0
"""What MindSpore reads from the environment when it loads; set here, so that no import of `src` can come after it."""

import os

# A user's own value wins.
# oneDNN's choice of AVX-512 kernel for k x k convolutions is its reference one, up to 150 times slower.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")
# The data module logs three lines for each unreadable image, which our own message names in one.
os.environ.setdefault("MS_SUBMODULE_LOG_v", "{MD:4}")
# MindSpore's own choice, which before 2.10 comes too late where onnx has been imported, and MindSpore then cannot be.
os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
# Seconds one worker waits for the slowest: of MindSpore's 30 a long evaluation or save would be the end.
os.environ.setdefault("MS_CPU_COMM_OP_TIMEOUT", "3600")
if os.environ.get("MS_ROLE") == "MS_SCHED":
    # Seconds of silence after which the scheduler takes a worker for dead; with MindSpore's 30 the workers of other
    # machines, who miss the scheduler in turn, would need more than a minute to end.
    os.environ.setdefault("MS_NODE_TIMEOUT", "15")
