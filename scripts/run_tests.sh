#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# All checks: style, then the tests, two files at a time (a test takes up to 4 GB).
# Arguments go to pytest, e.g. `bash scripts/run_tests.sh -x tests/test_scripts.py`; `--cov` adds coverage.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
choose_python
cd "$ROOT"
run "$python" -m ruff check .
run "$python" -m ruff format --check .
run "$python" -m pymarkdown --strict-config scan ./*.md docs
run "$(dirname "$python")/clang-format" --dry-run --Werror kernels/*.h kernels/*.cc
run "$(dirname "$python")/shellcheck" scripts/*.sh .ci/run
run "$python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"

