# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# What the launchers share: usage and checks, the Python to use, a process alone, a job of several workers.

set -euo pipefail
ROOT=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

train_standalone() { # DEVICE "$@"
    expect 1 "CONFIG [DATA_DIR] [--resume auto|FILE] [--section.key VALUE ...]" "${@:2}"
    configure "$@"
    launch train.py "${options[@]}"
}

train_distributed() { # DEVICE "$@"
    expect 2 "DEVICE_NUM CONFIG [DATA_DIR] [--resume auto|FILE] [--section.key VALUE ...]" "${@:2}"
    [[ $2 =~ ^[1-9][0-9]*$ ]] || fail "DEVICE_NUM $2: give the number of workers, one for each device"
    configure "$1" "${@:3}"
    launch_workers "$2" "logs/$(basename "$3" .yaml)-$(date +%Y%m%d-%H%M%S)" train.py "${options[@]}"
}

evaluate() { # DEVICE "$@"
    expect 2 "CONFIG CHECKPOINT [DATA_DIR] [--section.key VALUE ...]" "${@:2}"
    expect_file CHECKPOINT "$3"
    configure "$1" "$2" "${@:4}"
    launch eval.py --checkpoint "$3" "${options[@]}"
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
  MASTER_PORT=PORT   where the workers of a distributed job meet; otherwise a free port
  DRY_RUN=1          print the commands and run nothing
END
    exit "$1"
}

# Leave with the usage unless there are COUNT arguments or more.
expect() { # COUNT ARGUMENTS "$@"
    [[ ${3:-} == -h || ${3:-} == --help ]] && usage 0 "$2"
    (($# - 2 >= $1)) || usage 2 "$2"
}

# Set `options` for an entry script.
configure() { # DEVICE CONFIG [DATA_DIR] [OPTIONS...]
    expect_file CONFIG "$2"
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
    local command=("$python" "$ROOT/$1" "${@:2}")
    show "${command[@]}"
    is_dry_run || exec "${command[@]}"
}

# Run a Python script of the clone as data-parallel workers of this machine, and leave with the exit code of the job.
launch_workers() { # WORKERS LOG_DIR SCRIPT [WORDS...]
    choose_python
    local bin log_dir=$2
    bin=$(dirname "$python")
    is_dry_run || [[ -x $bin/msrun && -x $bin/python ]] || fail "$bin has no msrun and python; install MindSpore there"
    # msrun starts whatever `python` it finds first; a worker's warnings are its attempts to connect.
    export PATH=$bin:$PATH GLOG_v=${GLOG_v:-3} PYTHONUNBUFFERED=1
    local command=(
        "$bin/msrun" --worker_num="$1" --local_worker_num="$1" --master_port="${MASTER_PORT:-$(free_port)}"
        --log_dir="$log_dir" --join=True --tail_worker_log=0 "$ROOT/$3" "${@:4}"
    )
    show "${command[@]}"
    is_dry_run && return
    "${command[@]}" &
    job=$!
    trap 'stop_job 129' HUP
    trap 'stop_job 130' INT
    trap 'stop_job 143' TERM
    wait "$job" && return
    local status=$?
    echo "the job has failed; its logs are in $log_dir" >&2
    # msrun ends with 1 whatever its workers ended with; what the caller can mend is 2 here as everywhere.
    grep -shm 1 '^error: ' "$log_dir"/worker_*.log | head -n 1 >&2 && exit 2
    exit "$status"
}

# msrun takes its workers along on SIGINT only, to which it is deaf while it starts, and then reports success.
stop_job() { # STATUS
    trap '' HUP INT TERM
    while kill -INT "$job" 2>/dev/null; do sleep 0.5; done
    exit "$1"
}

# Print a port nothing listens on, below those the system gives to outgoing connections.
free_port() {
    local port
    while port=$((10000 + RANDOM % 20000)) && (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
    echo "$port"
}
