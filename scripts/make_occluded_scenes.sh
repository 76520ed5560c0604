#!/usr/bin/env bash
# Generates OccludedScenes and converts it: make_occluded_scenes.sh FOLDER TFRECORDS [OPTION …], with
# options of oanet_tf.data.occluded_scenes. Run again, it continues where it stopped.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ $# -lt 2 ]]; then
  echo "usage: bash $0 FOLDER TFRECORDS [OPTION of oanet_tf.data.occluded_scenes …]" >&2
  exit 2
fi
scenes=$1 tfrecords=$2
shift 2
bash scripts/setup_env.sh
python=.venv/bin/python

if [[ ! -d $scenes ]]; then
  $python -m oanet_tf.data.occluded_scenes --output_dir "$scenes" "$@"
fi
for split in train val; do
  $python scripts/convert_coco_tfrecord.py \
    --image_dir "$scenes/$split" \
    --panoptic_json "$scenes/annotations/panoptic_$split.json" \
    --panoptic_dir "$scenes/annotations/panoptic_$split" \
    --instances_json "$scenes/annotations/instances_$split.json" \
    --output_dir "$tfrecords" --split "$split"
done
