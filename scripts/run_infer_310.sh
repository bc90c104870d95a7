#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Classify images on an Ascend 310 or 310P by an exported ONNX file in MindSpore Lite, with the program of cpp_infer.

source "$(dirname "${BASH_SOURCE[0]}")/lite.sh"
classify_by_lite Ascend "$@"
