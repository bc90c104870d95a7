#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Train on the CPU.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
train_standalone CPU "$@"
