"""Checkpoints of a model folder: which can be read, and which is the best."""

import json
import logging
import pathlib
import re

import tensorflow as tf

from oanet_tf import files
from oanet_tf.errors import InputError, first_line

log = logging.getLogger(__name__)

PREFIX = 'ckpt'
BEST_FILE = 'best.json'


def newest_readable(folder: str | pathlib.Path) -> str | None:
  """Path of the newest checkpoint of which every value can be read; None if there is none.

  Newer ones that cannot, such as a process that dies while writing leaves, are named in a
  warning.
  """
  found = {
    int(match[1]): path.with_suffix('')
    for path in pathlib.Path(folder).glob(f'{PREFIX}-*.index')
    if (match := re.fullmatch(rf'{PREFIX}-(\d+)', path.stem))
  }
  for step in sorted(found, reverse=True):
    fault = find_fault(str(found[step]))
    if fault is None:
      return str(found[step])
    log.warning('%s: cannot be read (%s); trying the one before', found[step], fault)
  return None


def newest(model_dir: str | pathlib.Path) -> str:
  """Path of the newest checkpoint that can be read.

  Raises:
    InputError: if there is none.
  """
  path = newest_readable(model_dir)
  if path is None:
    raise InputError(f'{model_dir}: has no checkpoint; train first, or give another model folder')
  return path


def find_fault(path: str) -> str | None:
  """Reads every value; why that fails, in one line, or None."""
  try:
    reader = tf.train.load_checkpoint(path)
    for name in reader.get_variable_to_shape_map():
      reader.get_tensor(name)
  except (tf.errors.OpError, ValueError, RuntimeError, LookupError) as error:
    return first_line(error)
  return None


class BestCheckpoint:
  """Keeps the weights that scored highest, in a folder of their own."""

  def __init__(self, folder: pathlib.Path, metric: str, comparison: str):
    """Goes on from what the folder holds.

    Args:
      folder: for `ckpt-<step>` and `best.json`.
      metric: key of a scalar of the evaluation, as 'pq/srm'.
      comparison: 'higher' or 'lower' is better.
    """
    self._folder = folder
    self._metric = metric
    self._sign = 1.0 if comparison == 'higher' else -1.0
    self._value = _read_best(self._folder / BEST_FILE, metric)

  def is_better(self, scalars: dict[str, float]) -> bool:
    """Whether these scores are better than any before."""
    return self._value is None or self._sign * scalars[self._metric] > self._sign * self._value

  def save(self, model: tf.Module, scalars: dict[str, float], step: int) -> None:
    """Saves the model, and drops the one before."""
    self._value = scalars[self._metric]
    checkpoint = tf.train.Checkpoint(model=model)
    manager = tf.train.CheckpointManager(checkpoint, str(self._folder), 1, checkpoint_name=PREFIX)
    manager.save(checkpoint_number=step)
    best = {'step': step, 'metric': self._metric, 'value': self._value}
    files.write_text(self._folder / BEST_FILE, json.dumps(best, indent=1) + '\n')


def _read_best(path: pathlib.Path, metric: str) -> float | None:
  if not path.is_file():
    return None
  best = json.loads(path.read_text())
  return best['value'] if best['metric'] == metric else None
