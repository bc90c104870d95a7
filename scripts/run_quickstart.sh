#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a fresh clone to a running ONNX file: train a small ACmix-ResNet on scanned digits, evaluate, export, infer.
# A second run goes on where the first one stopped; delete outputs/acmix_resnet_digits to train anew.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

step() { # TITLE SCRIPT [WORDS...]
    printf '\n== %s\n' "$1" >&2
    run "$python" "${@:2}"
}

expect 0 "" "$@"
(($# == 0)) || usage 2 ""
choose_python
cd "$ROOT"
config=config/acmix_resnet_digits.yaml
run=outputs/acmix_resnet_digits
model=$run/acmix_resnet26_32_b1

step "1/4 Train" train.py --config $config --output_dir $run --resume auto
evaluation=$(step "2/4 Evaluate the best checkpoint" eval.py --config $config --checkpoint $run/best.ckpt)
echo "$evaluation"
step "3/4 Export" export.py --config $config --checkpoint $run/best.ckpt --format mindir,onnx --output_dir $run
images=(data/digits/val/3/*.png)
step "4/4 Classify one image by the ONNX file" infer.py --model $model.onnx --image "${images[0]}" --topk 3

is_dry_run && exit
report='import json, sys; r = json.loads(sys.argv[1]); print("%.2f %% of %d digits" % (r["top1"], r["samples"]))'
cat <<END

== Done
top-1         $("$python" -c "$report" "${evaluation##*$'\n'}") never trained on
environment   $python
images        $ROOT/data/digits/train, val
run           $ROOT/$run/config.yaml, metrics.jsonl, curves.png
checkpoints   $ROOT/$run/best.ckpt, last.ckpt
MindIR        $ROOT/$model.mindir, described in $(basename $model).mindir.json
ONNX          $ROOT/$model.onnx, described in $(basename $model).onnx.json
try           bash scripts/run_infer_onnx.sh $model.onnx data/digits/val/7
END
