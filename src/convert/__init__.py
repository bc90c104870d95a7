# SPDX-License-Identifier: Apache-2.0
"""From the published PyTorch files to ours and back."""
