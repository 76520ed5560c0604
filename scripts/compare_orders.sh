#!/usr/bin/env bash
# Compares ways of ordering instances on both kinds of OccludedScenes, for "Ways of ordering" in
# configs/paper/RESULTS.md. Six trainings of 10 to 25 minutes on two CPU cores. Stopped and run again,
# it continues where it stopped.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup_env.sh
# See "On a CPU" in oanet_tf/training/README.md.
export TF_ONEDNN_USE_SYSTEM_ALLOCATOR=1 MALLOC_ARENA_MAX=1 MALLOC_MMAP_MAX_=0 \
  MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=67108864

python=.venv/bin/python
run=runs/orders
fusions=heuristic,class_prior,srm,pairwise,oracle

for order in context category; do
  records=$run/tfrecords_$order
  prior=$run/prior_$order.json
  bash scripts/make_occluded_scenes.sh "$run/scenes_$order" "$records" --order "$order"
  [[ -f $prior ]] ||
    $python -m oanet_tf.class_prior --input_path "$records/train-*.tfrecord" --output "$prior"
done
for seed in 0 1 2; do
  for order in context category; do
    records=$run/tfrecords_$order
    model=$run/${order}_$seed
    settings=task.seed=$seed,task.model.occlusion_head.enabled=true
    settings+=,task.train_data.input_path=$records/train-*.tfrecord
    settings+=,task.validation_data.input_path=$records/val-*.tfrecord
    $python -m oanet_tf.train --experiment oanet_synthetic --mode train --model_dir "$model" \
      --params_override "$settings"
    [[ -f $model/evaluation/results.json ]] || $python -m oanet_tf.evaluate --model_dir "$model" \
      --fusions $fusions --params_override "task.model.fusion.class_prior=$run/prior_$order.json"
  done
done
$python scripts/compare_orders.py "$run"
