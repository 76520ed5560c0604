#!/usr/bin/env bash
# From nothing to a trained panoptic network: sets up, generates OccludedScenes, converts it, trains,
# segments a few images and evaluates with both fusions. Everything lands in runs/quickstart and
# tfrecords/synthetic. Run again, it continues where it stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup_env.sh
# See "On a CPU" in oanet_tf/training/README.md.
export TF_ONEDNN_USE_SYSTEM_ALLOCATOR=1 MALLOC_ARENA_MAX=1 MALLOC_MMAP_MAX_=0 \
  MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=67108864

python=.venv/bin/python
run=runs/quickstart
scenes=$run/occluded_scenes

bash scripts/make_occluded_scenes.sh "$scenes" tfrecords/synthetic
$python -m oanet_tf.train --experiment oanet_synthetic --model_dir "$run/model" --mode train
$python -m oanet_tf.predict --model "$run/model" --overwrite --output_dir "$run/pictures" \
  --images "$scenes"/val/00000000000{1,2,3,4,5,6,7,8}.jpg
$python -m oanet_tf.train --mode eval --model_dir "$run/model"

echo
echo "Pictures: $run/pictures/overlays/*.png"
echo "Scores:   $run/model/evaluation/results.json"
echo "Curves:   .venv/bin/tensorboard --logdir $run/model"
