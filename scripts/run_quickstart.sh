#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a fresh clone to a running ONNX file: train a small ACmix network, evaluate, export, infer. Of classification on
# scanned digits; of segmentation and of detection on the same digits, drawn over photographs.
# A second run goes on where the first one stopped; delete its folder in outputs to train anew.

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

step() { # TITLE SCRIPT [WORDS...]
    printf '\n== %s\n' "$1" >&2
    run "$python" "${@:2}"
}

expect 0 "[classification|segmentation|detection]" "$@"
(($# <= 1)) || usage 2 "[classification|segmentation|detection]"
case ${1:-classification} in
classification)
    name=acmix_resnet_digits network=acmix_resnet26_32_b1 data=data/digits
    examples=data/digits/val/3 shown=(--topk 3)
    figure='print("top-1         %.2f %% of %d digits never trained on" % (r["top1"], r["samples"]))'
    made="try           bash scripts/run_infer_onnx.sh outputs/$name/$network.onnx data/digits/val/7"
    ;;
segmentation)
    name=fpn_acmix_resnet_scenes network=fpn_acmix_resnet26_96_b1 data=data/scenes
    examples=data/scenes/images/validation shown=(--output "outputs/$name/masks" --overlay)
    figure='print("mIoU          %.2f %% of %d scenes never trained on; all of one class: %.2f %%" %
        (r["miou"], r["samples"], r["trivial"]))'
    made="look at       $ROOT/outputs/$name/masks/overlays"
    ;;
detection)
    name=retinanet_acmix_resnet_scenes network=retinanet_acmix_resnet26_128_b1 data=data/scenes
    examples=data/scenes/images/validation shown=(--output "outputs/$name/pictures")
    figure='print("AP50          %.2f %% of %d scenes never trained on; AP %.2f %%; with nothing found both are 0" %
        (r["ap50"], r["samples"], r["ap"]))'
    made="look at       $ROOT/outputs/$name/pictures"
    ;;
*) usage 2 "[classification|segmentation|detection]" ;;
esac
choose_python
cd "$ROOT"
config=config/$name.yaml
run=outputs/$name
model=$run/$network

step "1/4 Train" train.py --config "$config" --output_dir "$run" --resume auto
evaluation=$(step "2/4 Evaluate the best checkpoint" eval.py --config "$config" --checkpoint "$run/best.ckpt")
echo "$evaluation"
step "3/4 Export" export.py --config "$config" --checkpoint "$run/best.ckpt" --format mindir,onnx --output_dir "$run"
images=("$examples"/*.*g)
step "4/4 One image by the ONNX file" infer.py --model "$model.onnx" --image "${images[0]}" "${shown[@]}"

is_dry_run && exit
cat <<END

== Done
$("$python" -c "import json, sys; r = json.loads(sys.argv[1]); $figure" "${evaluation##*$'\n'}")
environment   $python
images        $ROOT/$data
run           $ROOT/$run/config.yaml, metrics.jsonl, curves.png
checkpoints   $ROOT/$run/best.ckpt, last.ckpt
MindIR        $ROOT/$model.mindir, described in $network.mindir.json
ONNX          $ROOT/$model.onnx, described in $network.onnx.json
$made
END
