#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Classify an image, or the images of a folder, by an exported ONNX file.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
expect 2 "MODEL IMAGE|FOLDER [--topk K] [--json | --output FILE.jsonl|FILE.csv] [--num_workers N] [--threads N]" "$@"
expect_file MODEL "$1"
[[ -e $2 ]] || fail "IMAGE $2: there is no such file or folder"
launch infer.py --model "$1" --image "${@:2}"
