# SPDX-License-Identifier: Apache-2.0
"""ONNX: the graph that MindSpore exports, mended pass by pass until runtimes take it."""
