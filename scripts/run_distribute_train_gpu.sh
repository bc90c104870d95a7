#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Train on several GPUs of one or many machines, data parallel.

source "$(dirname "${BASH_SOURCE[0]}")/job.sh"
train_distributed GPU "$@"
