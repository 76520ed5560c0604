#!/usr/bin/env bash
# Makes .venv with the package and the needs of its tests. Run again, it does nothing if setup.py
# and pyproject.toml are unchanged. PYTHON chooses the interpreter (3.10 to 3.13), and EXTRAS those
# of setup.py: "test", or "test,gpu" where there is nvidia-smi.
set -euo pipefail
cd "$(dirname "$0")/.."

if command -v nvidia-smi > /dev/null; then
  extras=${EXTRAS:-test,gpu}
else
  extras=${EXTRAS:-test}
fi
stamp=.venv/installed.sha256
wanted=$({ cat setup.py pyproject.toml scripts/setup_env.sh; echo "$extras"; } | sha256sum)
if [[ -f $stamp && $(cat "$stamp") == "$wanted" ]]; then
  exit 0
fi

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))'; then
  echo "error: $python is $("$python" --version 2>&1), but Python 3.10 to 3.13 is needed;" \
    "name one with PYTHON=python3.11 bash $0" >&2
  exit 2
fi
echo "Installing into .venv; TensorFlow and the Model Garden take a few minutes."
[[ -x .venv/bin/python ]] || "$python" -m venv .venv
.venv/bin/python -m pip install --quiet --upgrade pip
# setuptools prints long warnings about editable installations.
PYTHONWARNINGS=ignore .venv/bin/python -m pip install --quiet --editable ".[$extras]"
echo "$wanted" > "$stamp"
