# SPDX-License-Identifier: Apache-2.0
"""Time and memory of the models, and where they go."""
