# SPDX-License-Identifier: Apache-2.0
"""Folding: a trained network by fewer operators."""
