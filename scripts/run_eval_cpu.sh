#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Evaluate a checkpoint or an exported file on the CPU.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
evaluate CPU "$@"
