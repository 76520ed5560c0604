#!/usr/bin/env bash
# Sets up and runs lint and tests; arguments go to pytest (for example: -m slow).
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup_env.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
# One process for each core; the tests of a file share what they train.
.venv/bin/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile "$@"
