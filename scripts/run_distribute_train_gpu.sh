#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Train on several GPUs of this machine, data parallel.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
train_distributed GPU "$@"
