# SPDX-License-Identifier: Apache-2.0
"""Running exported files and checkpoints: from image files to answers."""
