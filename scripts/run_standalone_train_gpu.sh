#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Train on a GPU.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
train_standalone GPU "$@"
