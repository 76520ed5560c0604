#!/usr/bin/env bash
# Makes a panoptic network for COCO on a laptop: fetches one that was trained on COCO, trains the
# ranking module on COCO's annotations, puts it on top, and segments pictures. Run again, it goes on
# where it stopped. MODEL_URL and COCO_URL may name mirrors.
set -euo pipefail

usage() {
  cat << END
usage: bash $0 [--model NAME] [--images FILE_OR_FOLDER] [--steps NUMBER] [FOLDER]

Makes a network for COCO in FOLDER (runs/coco_network). On two CPU cores:
  fetch NAME of scripts/download_model.sh (detectron2_r50_3x)     180 MB
  fetch COCO's annotations, without images                        1.1 GB
  convert them to records of the images with conflicts            half an hour
  train the ranking module as FOLDER/ranking_module               half an hour
  join both as FOLDER/model                                       a few seconds
  segment the pictures of --images into FOLDER/results            a few seconds each
--steps trains the ranking module for another number of steps than the experiment srm_only_coco.
END
}

here=$PWD
# A path as it was given, from where the script was started.
from_here() { if [[ $1 == /* ]]; then echo "$1"; else echo "$here/$1"; fi; }
cd "$(dirname "$0")/.."
name=detectron2_r50_3x
folder=
images=()
training=
while (($#)); do
  case $1 in
    --help) usage && exit ;;
    --model | --images | --steps)
      (($# > 1)) || { usage >&2 && exit 2; }
      case $1 in
        --model) name=$2 ;;
        --images) images+=("$(from_here "$2")") ;;
        --steps) training=,trainer.train_steps=$2 ;;
      esac
      shift 2
      ;;
    -*) usage >&2 && exit 2 ;;
    *)
      [[ -z $folder ]] || { usage >&2 && exit 2; }
      folder=$(from_here "$1")
      shift
      ;;
  esac
done
folder=${folder:-runs/coco_network}
python=.venv/bin/python

say() { printf '\n== %s\n' "$*"; }

bash scripts/setup_env.sh
say "the network $name"
command=$(bash scripts/download_model.sh "$name" "$folder/published" | tail -n 1)
weights=${command#*--from }
weights=${weights% --model_dir *}

say "COCO's annotations"
bash scripts/download_coco.sh --annotations_only "$folder/coco"

say 'records of the images with conflicts'
annotations=$folder/coco/annotations
for split in train2017 val2017; do
  $python scripts/convert_coco_tfrecord.py --without_images --conflicts_only \
    --panoptic_json "$annotations/panoptic_$split.json" --panoptic_dir "$annotations/panoptic_$split" \
    --instances_json "$annotations/instances_$split.json" --output_dir "$folder/records" --split $split
done

say 'the ranking module'
records="task.train_data.input_path='$folder/records/train2017-*.tfrecord'"
records+=",task.validation_data.input_path='$folder/records/val2017-*.tfrecord'"
$python -m oanet_tf.train --experiment srm_only_coco --mode train \
  --model_dir "$folder/ranking_module" --params_override "$records$training"

say 'both together'
if [[ ! -d $folder/model ]]; then
  $python -m oanet_tf.import_weights --from "$weights" --model_dir "$folder/model" \
    --ranking_module "$folder/ranking_module"
fi
if ((${#images[@]})); then
  say 'the pictures'
  $python -m oanet_tf.predict --model "$folder/model" --overwrite --images "${images[@]}" \
    --output_dir "$folder/results"
else
  echo "$python -m oanet_tf.predict --model $folder/model --images FILE_OR_FOLDER --output_dir runs/mine"
fi
