#!/bin/bash
# Trains on several machines under Slurm; its arguments are those of `oanet train`.
#
#   sbatch --nodes=2 scripts/train_slurm.sh --experiment oanet_r50fpn_coco --model_dir /shared/runs/coco …
#
# All machines must see the model folder and the shards. Slurm sends SIGTERM two minutes before the
# time limit, which is enough for a checkpoint. The job is then queued again and continues.
#SBATCH --job-name=oanet
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=8
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

PORT=${PORT:-23456}
PYTHON=${PYTHON:-.venv/bin/python}
export PYTHON

workers=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed "s/.*/\"&:$PORT\"/" | paste -sd,)
export WORKERS="[$workers]"

code=0
# If one worker fails, all stop: none can continue alone.
srun --kill-on-bad-exit=1 bash -c '
  export TF_CONFIG="{\"cluster\": {\"worker\": $WORKERS}, \"task\": {\"type\": \"worker\", \"index\": $SLURM_PROCID}}"
  exec "$PYTHON" -m oanet_tf.train "$@"' oanet "$@" || code=$?
# 143 is SIGTERM, after a checkpoint.
if [ "$code" = 143 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
