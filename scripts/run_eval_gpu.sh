#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Evaluate a checkpoint or an exported file on a GPU.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
evaluate GPU "$@"
