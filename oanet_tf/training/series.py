"""Reads the scalars that a training wrote, without TensorFlow."""

import collections
import json
import pathlib
from typing import Any

from oanet_tf.errors import InputError

METRICS_FILE = 'metrics.jsonl'
# Decay of the exponential moving average that is drawn over the values.
SMOOTHING = 0.7

Series = dict[str, tuple[list[int], list[float]]]


def read_records(path: pathlib.Path) -> list[dict[str, Any]]:
  """What was written, in order.

  A process that was killed or whose disk was full leaves half a line, which is left out.
  """
  records = []
  for line in path.read_bytes().splitlines():
    try:
      record = json.loads(line)
    except (ValueError, RecursionError):
      continue
    if isinstance(record, dict) and isinstance(record.get('step'), int):
      records.append(record)
  return records


def read_series(path: pathlib.Path, prefixes: tuple[str, ...], remedy: str = '') -> Series:
  """The steps and values of the scalars whose names begin with one of the prefixes.

  Args:
    path: of `metrics.jsonl`.
    prefixes: of names.
    remedy: what to do if there is no such scalar, for the error.

  Raises:
    InputError: if the file is missing or has no such scalar.
  """
  if not path.is_file():
    raise InputError(f'{path}: there is no such file; train first, or give another model folder')
  series: Series = collections.defaultdict(lambda: ([], []))
  for record in read_records(path):
    for name, value in record.items():
      if name != 'step' and name.startswith(prefixes) and isinstance(value, int | float):
        series[name][0].append(record['step'])
        series[name][1].append(value)
  if not series:
    fact = f'{path}: has no scalar that begins with {" or ".join(prefixes)}'
    raise InputError(f'{fact}; {remedy}' if remedy else fact)
  return dict(series)


def smoothed(values: list[float]) -> list[float]:
  """An exponential moving average that starts at the first value."""
  result = values[:1]
  for value in values[1:]:
    result.append(SMOOTHING * result[-1] + (1.0 - SMOOTHING) * value)
  return result
