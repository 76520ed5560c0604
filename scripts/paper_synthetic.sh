#!/usr/bin/env bash
# The paper's Tables 1 to 5, and options beyond them, on OccludedScenes: the content of
# configs/paper/RESULTS.md. Backbones trained on other scenes stand in for the paper's ImageNet
# backbones. Takes hours on two CPU cores. Stopped and run again, it continues where it stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup_env.sh

python=.venv/bin/python
run=runs/paper_synthetic

bash scripts/make_occluded_scenes.sh runs/quickstart/occluded_scenes tfrecords/synthetic
bash scripts/make_occluded_scenes.sh "$run/other_scenes" "$run/other_tfrecords" --seed 1

data=task.seed=100,task.train_data.input_path=$run/other_tfrecords/train-*.tfrecord
$python -m oanet_tf.train --experiment oanet_synthetic --mode train \
  --model_dir "$run/pretrained_small" --params_override "$data"
$python -m oanet_tf.train --experiment oanet_synthetic --mode train \
  --config_file configs/paper/resnet34.yaml \
  --model_dir "$run/pretrained_large" --params_override "$data"

$python -m oanet_tf.ablation --table all,beyond --dataset synthetic --model_dir "$run/tables" \
  --seeds 3 --train_steps 400 --init_checkpoints "$run/pretrained_small" "$run/pretrained_large"
