# SPDX-License-Identifier: Apache-2.0
"""From a checkpoint to files that run elsewhere, and running them."""

# It sets what MindSpore reads when it loads, so it comes before any module here that loads it.
import src.device  # noqa: F401
