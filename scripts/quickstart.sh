#!/usr/bin/env bash
# From nothing to a trained panoptic network: sets up, makes OccludedScenes, converts it, trains,
# evaluates with both fusions and segments a few pictures. Everything lands in runs/quickstart and
# tfrecords/synthetic; run again, it skips what is done.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup_env.sh

python=.venv/bin/python
run=runs/quickstart
scenes=$run/occluded_scenes
shards=tfrecords/synthetic

if [[ ! -d $scenes ]]; then
  $python -m oanet_tf.data.synthetic --output_dir "$scenes"
fi
for split in train val; do
  if ! compgen -G "$shards/$split-*.tfrecord" > /dev/null; then
    $python scripts/convert_coco_tfrecord.py \
      --image_dir "$scenes/$split" \
      --panoptic_json "$scenes/annotations/panoptic_$split.json" \
      --panoptic_dir "$scenes/annotations/panoptic_$split" \
      --instances_json "$scenes/annotations/instances_$split.json" \
      --output_dir "$shards" --split "$split"
  fi
done

$python -m oanet_tf.train --experiment oanet_synthetic --model_dir "$run/model"
$python -m oanet_tf.predict --model "$run/model" --output_dir "$run/pictures" \
  --images "$scenes"/val/00000000000{1,2,3,4,5,6,7,8}.jpg

echo "Pictures: $run/pictures/overlays/*.png"
echo "Scores:   $run/model/evaluation/results.json"
echo "Curves:   .venv/bin/tensorboard --logdir $run/model"
