#!/usr/bin/env bash
# Sets up and runs lint, type checks and tests. --core, as the first argument, leaves out the tests that train,
# export or trace whole networks. All other arguments go to pytest (for example: -m slow).
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup_env.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
core=()
if [[ ${1-} == --core ]]; then
  core=(-m 'not slow and not heavy')
  shift
fi
# Without bytecode, each process, and each command that a test starts, compiles the package again.
unset PYTHONDONTWRITEBYTECODE
# One process for each core. Neighbours share fixtures, so each begins with a part of its own.
.venv/bin/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal \
  ${core[@]+"${core[@]}"} "$@"
