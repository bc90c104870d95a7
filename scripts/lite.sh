# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# Classifying by MindSpore Lite: convert an exported ONNX file, build cpp_infer, run it.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

classify_by_lite() { # DEVICE "$@"
    expect 2 "MODEL.onnx IMAGE... [--topk K] [--threads N] [--device_id N]" "${@:2}"
    local device=$1 onnx=$2 build=$ROOT/build/cpp_infer
    expect_file MODEL "$onnx"
    [[ $onnx == *.onnx ]] || fail "MODEL $onnx: it takes the .onnx of an export, and converts that itself"
    expect_file CARD "$onnx.json"
    [[ $3 == --* || -f $3 ]] || fail "IMAGE $3: there is no such file"
    command -v cmake >/dev/null || fail "there is no cmake, which builds cpp_infer; install it"
    choose_lite "$device"
    local mindir=${onnx%.onnx}_lite.mindir
    [[ $device == CPU ]] || mindir=${onnx%.onnx}_ascend.mindir
    [[ $mindir -nt $onnx ]] || convert "$device" "$onnx" "${mindir%.mindir}" >&2
    run cmake -S "$ROOT/cpp_infer" -B "$build" -DLITE_HOME="$LITE_HOME" >&2
    run cmake --build "$build" >&2
    local command=("$build/acmix_infer" --model "$mindir" --card "$onnx.json" --device_target "$device" "${@:3}")
    show "${command[@]}"
    is_dry_run || exec "${command[@]}"
}

# Make LITE_HOME the caller's own, or on a CPU .lite, which is made the first time.
choose_lite() { # DEVICE
    if [[ -z ${LITE_HOME:-} && $1 == CPU ]]; then
        is_dry_run || bash "$ROOT/scripts/setup_lite.sh"
        LITE_HOME=$ROOT/.lite/mindspore_lite
    fi
    [[ -n ${LITE_HOME:-} ]] || fail "LITE_HOME is not set; name the folder of an unpacked MindSpore Lite for $1"
    is_dry_run || [[ -d $LITE_HOME ]] || fail "LITE_HOME $LITE_HOME: there is no such folder"
    local folder
    for folder in runtime/lib runtime/third_party/{glog,dnnl,libjpeg-turbo/lib} tools/converter/lib lib; do
        export LD_LIBRARY_PATH=$LITE_HOME/$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    done
    # Of the library's own lines only the errors; the program says the rest.
    export GLOG_v=${GLOG_v:-3}
}

# Convert by the release's own program, or else by the Python that the package is for.
convert() { # DEVICE ONNX OUTPUT
    local converter=$LITE_HOME/tools/converter/converter/converter_lite optimize=general
    [[ $1 == CPU ]] || optimize=ascend_oriented
    if [[ $1 != CPU || -x $converter ]]; then
        [[ -x $converter ]] || is_dry_run || fail "LITE_HOME $LITE_HOME: no release, it has no $converter"
        run "$converter" --fmk=ONNX --saveType=MINDIR --optimize=$optimize --modelFile="$2" --outputFile="$3"
    else
        local python=${LITE_PYTHON:-python3.7}
        is_dry_run || "$python" -c "import numpy" 2>/dev/null ||
            fail "$python is no Python 3.7 with NumPy, which converts; name one in LITE_PYTHON"
        PYTHONPATH=${LITE_HOME%/*} run "$python" "$ROOT/scripts/lite_infer.py" --model "$2"
    fi
}
