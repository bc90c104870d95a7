# SPDX-License-Identifier: Apache-2.0
"""What a trained network learned, as pictures."""

# It sets what MindSpore reads when it loads, so it comes before any module here that loads it.
import src.device  # noqa: F401
