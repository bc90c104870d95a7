# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# A job of several workers on one or many machines: the command line of msrun, how the job is stopped, and why it failed.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
GONE='the scheduler is gone'

train_distributed() { # DEVICE "$@"
    expect 2 "DEVICE_NUM CONFIG [DATA_DIR] [--resume auto|FILE] [--section.key VALUE ...]
       [--nnodes N --node_rank R --master_addr HOST [--master_port PORT]] [--rank_table_file FILE]
       [--bind_core True|JSON] [--bind_numa True|FILE] [--cluster_time_out SECONDS]
  DEVICE_NUM         workers on this machine, one for each device
  --nnodes N         machines; start this script on each of them, with the same DEVICE_NUM
  --node_rank R      number of this machine, from 0 to N - 1; where workers 0 to DEVICE_NUM - 1 run is 0
  --master_addr HOST the machine where the workers meet, as the others reach it
  --master_port PORT the port there, the same on all machines; otherwise 8118, on one machine a free port
  --rank_table_file FILE  the order of the workers, see docs/training.md
  --bind_core, --bind_numa  keep workers to cores or memory of their own, as msrun does
  --cluster_time_out SECONDS  how long workers wait for each other to start; otherwise 600" "${@:2}"
    is_count "$2" || fail "DEVICE_NUM $2: give the number of workers on this machine, one for each device"
    take_job_options "${@:3}"
    expect 1 CONFIG "${others[@]}"
    configure "$1" "${others[@]}"
    local log_dir
    log_dir=logs/$(basename "${others[0]}" .yaml)-$(date +%Y%m%d-%H%M%S)
    ((nnodes == 1)) || log_dir+=-node$node_rank
    launch_workers "$2" "$log_dir" train.py "${options[@]}"
}

is_count() { # WORD
    [[ $1 =~ ^[1-9][0-9]{0,5}$ ]]
}

# Take what is for msrun out of the words and check it; set `others` to the rest.
take_job_options() { # WORDS...
    nnodes=1 node_rank='' master_addr='' master_port=${MASTER_PORT:-} rank_table_file='' others=()
    bind_core='' bind_numa='' cluster_time_out=''
    local known='nnodes|node_rank|master_addr|master_port|rank_table_file|bind_core|bind_numa|cluster_time_out'
    while (($#)); do
        if [[ $1 =~ ^--($known)(=.*)?$ ]]; then
            local name=${BASH_REMATCH[1]} value=${BASH_REMATCH[2]#=}
            if [[ $1 != *=* ]]; then
                (($# > 1)) || fail "--$name takes a value: --$name VALUE"
                value=$2
                shift
            fi
            printf -v "$name" %s "$value"
        else
            others+=("$1")
        fi
        shift
    done
    is_count "$nnodes" || fail "--nnodes $nnodes: give the number of machines"
    if ((nnodes == 1)); then
        : "${node_rank:=0}" "${master_addr:=127.0.0.1}" "${master_port:=$(free_port)}"
    fi
    { [[ $node_rank =~ ^(0|[1-9][0-9]{0,5})$ ]] && ((node_rank < nnodes)); } ||
        fail "--node_rank '$node_rank': give the number of this machine, from 0 to $((nnodes - 1))"
    [[ -n $master_addr ]] || fail "--master_addr is missing; give the address of the machine with --node_rank 0"
    : "${master_port:=8118}"
    { is_count "$master_port" && ((1024 <= master_port && master_port <= 65535)); } ||
        fail "--master_port $master_port: give a free port from 1024 to 65535"
    [[ -z $rank_table_file ]] || expect_file --rank_table_file "$rank_table_file"
    [[ -z $cluster_time_out || $cluster_time_out =~ ^-?[0-9]{1,9}$ ]] ||
        fail "--cluster_time_out $cluster_time_out: give the seconds to wait for the other workers"
}

# Run a Python script of the clone as data-parallel workers, and leave with the exit code of the job.
launch_workers() { # WORKERS_HERE LOG_DIR SCRIPT [WORDS...]
    choose_python
    expect_device
    local bin log_dir=$2
    bin=$(dirname "$python")
    is_dry_run || [[ -x $bin/msrun && -x $bin/python ]] || fail "$bin has no msrun and python; install MindSpore there"
    # msrun starts whatever `python` it finds first; a worker's warnings are its attempts to connect.
    export PATH=$bin:$PATH GLOG_v=${GLOG_v:-3} PYTHONUNBUFFERED=1
    local command=(
        "$bin/msrun" --worker_num="$(($1 * nnodes))" --local_worker_num="$1" --node_rank="$node_rank"
        --master_addr="$master_addr" --master_port="$master_port" --log_dir="$log_dir" --join=True --tail_worker_log=0
    )
    [[ -z $rank_table_file ]] || command+=(--rank_table_file="$rank_table_file")
    [[ -z $bind_core ]] || command+=(--bind_core="$bind_core")
    [[ -z $bind_numa ]] || command+=(--bind_numa="$bind_numa")
    [[ -z $cluster_time_out ]] || command+=(--cluster_time_out="$cluster_time_out")
    command+=("$ROOT/$3" "${@:4}")
    show "${command[@]}"
    is_dry_run && return
    mkdir -p "$log_dir"
    "${command[@]}" 2>"$log_dir/msrun.log" &
    job=$!
    ((nnodes == 1)) || watch_scheduler "$log_dir/msrun.log" >/dev/null 2>&1 &
    trap 'stop_job 129' HUP
    trap 'stop_job 130' INT
    trap 'ask_to_stop' TERM
    local status=0
    wait "$job" || status=$?
    # Where the scheduler ran, msrun reports success after being stopped.
    ! grep -q "^$GONE" "$log_dir/msrun.log" || status=1
    ((status == 0)) || explain_failure $status "$log_dir"
}

# Show what the worker that failed first said last; leave with 2 for what the caller can mend, as everywhere.
explain_failure() { # STATUS LOG_DIR
    local mistake log pattern='Worker process ([0-9]+) exit with exception. Error code: (-?[0-9]+)'
    mistake=$(grep -shm 1 '^error: ' "$2"/worker_*.log | head -n 1) || true
    if [[ -n $mistake ]]; then
        printf 'the job has failed; its logs are in %s\n%s\n' "$2" "$mistake" >&2
        exit 2
    fi
    if [[ $(<"$2/msrun.log") =~ $pattern ]]; then
        local code=${BASH_REMATCH[2]} how who="process ${BASH_REMATCH[1]}"
        how="ended with exit code $code"
        ((code >= 0)) || how="was killed by signal $((-code))"
        log=$(grep -slE "^$who on " "$2"/worker_*.log | head -n 1) || true
        [[ -z $log ]] || who="worker $(basename "$log" .log | tr -dc 0-9), $who,"
    fi
    log=${log:-$2/msrun.log}
    printf 'the last lines of %s:\n' "$log" >&2
    tail -n 20 "$log" | sed 's/^/    /' >&2
    # What the scheduler missed, or that it is gone, says which machine to look at.
    ((nnodes == 1)) || grep -shE "^(RuntimeError: The |$GONE)" "$2/scheduler.log" "$2/msrun.log" >&2 || true
    printf '%sthe job has failed; its logs are in %s\n' "${how:+$who $how: }" "$2" >&2
    exit "$1"
}

# End the workers of this machine when the scheduler is gone, as it is once a worker of any machine is: in the middle of
# an exchange with that worker they would wait without an end.
watch_scheduler() { # LOG
    local has_been_seen='' misses=0
    while sleep 4 && kill -0 "$job" 2>/dev/null; do
        # shellcheck disable=SC2016 # the inner shell expands $0 and $1
        if timeout 4 bash -c ': <"/dev/tcp/$0/$1"' "$master_addr" "$master_port" 2>/dev/null; then
            has_been_seen=1 misses=0
        elif [[ -n $has_been_seen ]] && ((++misses == 3)); then
            echo "$GONE at $master_addr:$master_port, so a worker has failed; its machine's logs say why" >>"$1"
            kill -INT "$job"
        fi
    done
}

# Let the workers save and end, as preemptible machines ask; the job ends well if all of them do.
ask_to_stop() {
    trap '' TERM
    # Workers lead a session of their own; the scheduler, which they need to the end, does not.
    ps -o pid=,sid= --ppid "$job" | while read -r pid session; do
        [[ $pid != "$session" ]] || kill -TERM "$pid" || true
    done || true
    local half_seconds=600
    while ((half_seconds--)) && kill -0 "$job" 2>/dev/null; do sleep 0.5; done
    wait "$job" && exit 0
    stop_job 143
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
