#!/usr/bin/env bash
# Makes what comes with the package in oanet_tf/prediction/shipped: the quickstart's network as the
# TFLite file of oanet demo, two pictures of its validation split, and the scores that it reaches there.
# Takes the quickstart's network if there is one, and trains it otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup_env.sh

python=.venv/bin/python
run=runs/quickstart
scenes=$run/occluded_scenes
shipped=oanet_tf/prediction/shipped
file=occluded_scenes.tflite
work=runs/shipped

bash scripts/make_occluded_scenes.sh "$scenes" tfrecords/synthetic
$python -m oanet_tf.train --experiment oanet_synthetic --model_dir "$run/model" --mode train

rm -rf "$work"
$python -m oanet_tf.export --model_dir "$run/model" --export_dir "$work/exports" \
  --formats web --version 1
$python -m oanet_tf.predict --model "$work/exports/web/1/model.tflite" \
  --images "$scenes/val" --output_dir "$work/results"
$python -m oanet_tf.pq --gt_json "$scenes/annotations/panoptic_val.json" \
  --pred_json "$work/results/predictions.json" --output "$work/quality.json"

mkdir -p "$shipped/pictures"
cp "$work/exports/web/1/model.tflite" "$shipped/$file"
cp "$scenes"/val/0000000000{04,07}.jpg "$shipped/pictures"
$python - "$work/quality.json" "$run/model/params.yaml" "$shipped/network.json" << 'END'
import json, pathlib, sys
import yaml

quality = json.loads(pathlib.Path(sys.argv[1]).read_text())
params = yaml.safe_load(pathlib.Path(sys.argv[2]).read_text())
pathlib.Path(sys.argv[3]).write_text(json.dumps({
  'data': 'OccludedScenes, which is generated: the network knows nothing else',
  'experiment': 'oanet_synthetic',
  'train_steps': params['trainer']['train_steps'],
  'seed': params['task']['seed'],
  'panoptic_quality': {group: quality[group] for group in ('All', 'Things', 'Stuff')},
}, indent=1) + '\n')
END
