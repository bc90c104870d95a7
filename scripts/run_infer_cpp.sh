#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Classify images on the CPU by an exported ONNX file in MindSpore Lite, with the program of cpp_infer.

source "$(dirname "${BASH_SOURCE[0]}")/lite.sh"
classify_by_lite CPU "$@"
