# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What the launchers share: usage and checks, the Python to use, a process alone.

set -euo pipefail
ROOT=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

train_standalone() { # DEVICE "$@"
    expect 1 "CONFIG [DATA_DIR] [--resume auto|FILE] [--section.key VALUE ...]" "${@:2}"
    configure "$@"
    launch train.py "${options[@]}"
}

evaluate() { # DEVICE "$@"
    expect 2 "CONFIG CHECKPOINT|MODEL [DATA_DIR] [--key KEY|@FILE] [--section.key VALUE ...]
  MODEL              an exported .onnx or .mindir file" "${@:2}"
    local kind=checkpoint
    [[ $3 == *.ckpt ]] || kind=model
    expect_file "${kind^^}" "$3"
    configure "$1" "$2" "${@:4}"
    launch eval.py --"$kind" "$3" "${options[@]}"
}

fail() {
    echo "error: $*" >&2
    exit 2
}

expect_file() { # NAME PATH
    [[ -f $2 ]] || fail "$1 $2: there is no such file"
}

usage() { # STATUS ARGUMENTS
    (($1 == 0)) || exec >&2
    cat <<END
usage: bash scripts/$(basename "$0") $2
Environment variables:
  ACMIX_PYTHON=FILE  the Python to run with; otherwise that of .venv, which is made the first time
  MASTER_PORT=PORT   the same as --master_port, where workers of a distributed job meet
  LITE_HOME=FOLDER   an unpacked MindSpore Lite; LITE_PYTHON=FILE a Python that its package is for
  DRY_RUN=1          print the commands and run nothing
END
    exit "$1"
}

# Leave with the usage unless there are COUNT arguments or more.
expect() { # COUNT ARGUMENTS "$@"
    [[ ${3:-} == -h || ${3:-} == --help ]] && usage 0 "$2"
    (($# - 2 >= $1)) || usage 2 "$2"
}

# Set `options` for an entry script, and `device`.
configure() { # DEVICE CONFIG [DATA_DIR] [OPTIONS...]
    expect_file CONFIG "$2"
    device=$1
    options=(--config "$2" --device_target "$1")
    shift 2
    if (($#)) && [[ $1 != --* ]]; then
        options+=(--data_dir "$1")
        shift
    fi
    (($# == 0)) || [[ $1 == --* ]] || fail "unexpected argument '$1'; settings are given as --section.key VALUE"
    options+=("$@")
}

# Set `python` to the caller's own, or to that of .venv.
choose_python() {
    if [[ -n ${ACMIX_PYTHON:-} ]]; then
        python=$(command -v "$ACMIX_PYTHON") || fail "ACMIX_PYTHON $ACMIX_PYTHON: there is no such program"
        [[ $python == /* ]] || python=$PWD/$python
    else
        is_dry_run || bash "$ROOT/scripts/setup_env.sh"
        python=$ROOT/.venv/bin/python
    fi
}

# Leave with a line unless what MindSpore needs of CANN is there.
expect_device() {
    [[ ${device:-} == Ascend ]] && ! is_dry_run || return 0
    [[ -n ${ASCEND_HOME_PATH:-}${ASCEND_TOOLKIT_HOME:-} ]] ||
        fail "the environment of CANN is not set (no ASCEND_HOME_PATH); run: source set_env.sh in CANN's folder"
    local code='import importlib.util as u; print(*(n for n in ("hccl", "te", "sympy") if not u.find_spec(n)))' missing
    missing=$("$python" -c "$code") || fail "$python does not run; set ACMIX_PYTHON to one that does"
    [[ -z $missing ]] ||
        fail "$python lacks CANN's Python packages ($missing); see \"The environment on Ascend\" in docs/training.md"
}

is_dry_run() {
    [[ ${DRY_RUN:-0} != 0 ]]
}

show() {
    printf '+%s\n' "$(printf ' %q' "$@")" >&2
}

run() {
    show "$@"
    is_dry_run || "$@"
}

# Become this Python script of the clone, so that signals reach it.
launch() { # SCRIPT [WORDS...]
    choose_python
    expect_device
    local command=("$python" "$ROOT/$1" "${@:2}")
    show "${command[@]}"
    is_dry_run || exec "${command[@]}"
}
