#!/usr/bin/env python3
"""Measures the way from `import oanet_tf` to the first overlay, and its peak memory.

Each measurement is a new process, and the models take turns. The picture is one that comes with the
package.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

from oanet_tf import errors, files
from oanet_tf.arguments import positive

FIRST_OVERLAY = """
import time
start = time.perf_counter()
import oanet_tf
imported = time.perf_counter()
import json, resource, sys, tempfile
model = oanet_tf.load(sys.argv[1] or None)
loaded = time.perf_counter()
from oanet_tf.prediction.model import SHIPPED_PICTURES
with tempfile.TemporaryDirectory() as folder:
  next(model(SHIPPED_PICTURES, batch_size=1)).plot().save(f'{folder}/overlay.png')
end = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([imported - start, loaded - start, end - start, peak]))
"""
COLUMNS = ('imported_s', 'loaded_s', 'overlay_s', 'peak_mb')


def measure(models: list[str], rounds: int) -> dict[str, dict[str, list[float]]]:
  """For each model, what each round took, by `COLUMNS`; '' is the shipped network."""
  taken: dict[str, dict[str, list[float]]] = {
    model: {name: [] for name in COLUMNS} for model in models
  }
  for _ in range(rounds):
    for model, columns in taken.items():
      done = subprocess.run(
        [sys.executable, '-c', FIRST_OVERLAY, model], capture_output=True, text=True
      )
      if done.returncode:
        raise errors.InputError(f'{model}: {done.stderr.strip().splitlines()[-1]}')
      for name, value in zip(COLUMNS, json.loads(done.stdout.splitlines()[-1]), strict=True):
        columns[name].append(value)
  return taken


def main() -> None:
  """The command line."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--models', nargs='*', default=[], help='beside the shipped network')
  parser.add_argument('--rounds', type=positive, default=3, help='(default: %(default)s)')
  parser.add_argument('--output', type=pathlib.Path, help='JSON file for all values')
  arguments = parser.parse_args()
  taken = measure(['', *arguments.models], arguments.rounds)
  if arguments.output:
    files.write_text(arguments.output, json.dumps(taken, indent=1) + '\n')
  print('medians, since the start | ' + ' | '.join(COLUMNS))
  for model, columns in taken.items():
    medians = (f'{statistics.median(columns[name]):.2f}' for name in COLUMNS)
    print(f'{model or "shipped network"} | ' + ' | '.join(medians))


if __name__ == '__main__':
  errors.run(main)
