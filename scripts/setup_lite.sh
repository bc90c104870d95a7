#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Make .lite/mindspore_lite in the clone, headers and libraries of MindSpore Lite for CPUs of x86-64, from its Python
# package; where that is done already, end at once.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cd "$ROOT"
version=2.0.0
[[ -f .lite/installed && $(<.lite/installed) == "$version" ]] && exit
choose_python
echo "making .lite with MindSpore Lite $version (170 MB to download)" >&2
rm -rf .lite
# The package is for Python 3.7; its headers and libraries need none.
"$python" -m pip download --disable-pip-version-check --progress-bar off --no-deps --only-binary=:all: \
    --python-version 3.7 --implementation cp --abi cp37m --platform manylinux1_x86_64 \
    --dest .lite "mindspore-lite==$version" >&2
"$python" -m zipfile -e .lite/*.whl .lite
rm .lite/*.whl
echo "$version" >.lite/installed
