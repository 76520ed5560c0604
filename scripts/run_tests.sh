#!/usr/bin/env bash
# Sets up and runs lint and tests; arguments go to pytest (for example: -m slow).
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup_env.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/python -m pytest "$@"
