#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Make .venv in the clone and install requirements.txt; where that is done already, end at once.
#   bash scripts/setup_env.sh                       with the first Python 3.10 to 3.12 found
#   PYTHON=python3.10 bash scripts/setup_env.sh     with this one

set -euo pipefail
cd -P "$(dirname "${BASH_SOURCE[0]}")/.."

find_python() {
    local candidates=("${PYTHON:-python3}") candidate
    [[ -n ${PYTHON:-} ]] || candidates+=(python3.11 python3.12 python3.10)
    for candidate in "${candidates[@]}"; do
        "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null || continue
        command -v "$candidate"
        return
    done
    echo "error: MindSpore 2.10 needs Python 3.10 to 3.12, and ${candidates[*]} is none;" \
        "name one: PYTHON=/path/to/python3.11" >&2
    return 2
}

# Written after the last step, so that an interrupted installation is taken up again.
stamp=.venv/installed
wanted="$(cksum <requirements.txt) $PWD"
[[ -f $stamp && $(<"$stamp") == "$wanted" ]] && exit

# Without a pip of this very folder, .venv is missing, half made, or came along with a moved or copied clone.
if [[ $(.venv/bin/pip --version 2>/dev/null) != *" $PWD/.venv/"* ]]; then
    if [[ -L .venv ]]; then
        echo "error: .venv is a link to $(readlink .venv), which would be emptied; remove the link, or name the Python" \
            "to use: ACMIX_PYTHON=FILE" >&2
        exit 2
    fi
    python=$(find_python)
    echo "making .venv with $python" >&2
    "$python" -m venv --clear .venv >&2
fi
echo "installing requirements.txt into .venv (the first time about 1 GB to download)" >&2
rm -f "$stamp"
.venv/bin/python -m pip install --disable-pip-version-check --progress-bar off -r requirements.txt >&2
echo "$wanted" >"$stamp"
