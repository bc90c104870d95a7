#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Export a checkpoint as MindIR, ONNX or AIR.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
expect 3 "CONFIG CHECKPOINT FORMATS [--batch_size N | --dynamic_batch] [--preprocess] [--softmax] [further options of export.py] [--section.key VALUE ...]   e.g. FORMATS mindir,onnx" "$@"
expect_file CONFIG "$1"
expect_file CHECKPOINT "$2"
launch export.py --config "$1" --checkpoint "$2" --format "${@:3}"
