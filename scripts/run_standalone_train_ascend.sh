#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Train on an Ascend device.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
train_standalone Ascend "$@"
