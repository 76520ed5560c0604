#!/usr/bin/env bash
# `oanet download model NAME [FOLDER]` for a clone that is not installed.
set -euo pipefail
root=$(dirname "$0")/..
python=$root/.venv/bin/python
[[ -x $python ]] || python=python3
if ! "$python" -c 'import tqdm' 2> /dev/null; then
  echo "error: $python has no tqdm; bash $(dirname "$0")/setup_env.sh makes a .venv with it" >&2
  exit 2
fi
PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} exec "$python" -m oanet_tf.download model "$@"
