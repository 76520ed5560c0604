"""The checkpoints of a model folder: the newest that is readable, and the best."""

import json
import logging
import pathlib
import re

import tensorflow as tf

from oanet_tf import files
from oanet_tf.errors import InputError, first_line
from oanet_tf.files import FilePath

log = logging.getLogger(__name__)

PREFIX = 'ckpt'
BEST_FILE = 'best.json'


def newest_readable(folder: FilePath) -> str | None:
  """Path of the newest checkpoint that can be read in full; None if there is none.

  A warning names newer ones that cannot, such as those of a process that died while writing.
  """
  found = {
    int(match[1]): path.with_suffix('')
    for path in pathlib.Path(folder).glob(f'{PREFIX}-*.index')
    if (match := re.fullmatch(rf'{PREFIX}-(\d+)', path.stem))
  }
  for step in sorted(found, reverse=True):
    try:
      reader = tf.train.load_checkpoint(str(found[step]))
      for name in reader.get_variable_to_shape_map():
        reader.get_tensor(name)
    except (tf.errors.OpError, ValueError, RuntimeError, LookupError) as error:
      log.warning('%s: cannot be read (%s); trying the one before', found[step], first_line(error))
    else:
      return str(found[step])
  return None


def newest(model_dir: FilePath) -> str:
  """Path of the newest checkpoint that can be read.

  Raises:
    InputError: if there is none.
  """
  path = newest_readable(model_dir)
  if path is None:
    raise InputError(f'{model_dir}: has no checkpoint; train first, or give another model folder')
  return path


class BestCheckpoint:
  """Keeps the weights with the best score in a folder, and continues from what is there.

  Args:
    folder: for `ckpt-<step>` and `best.json`.
    metric: key of a scalar of the evaluation, such as 'pq/srm'.
    comparison: whether 'higher' or 'lower' is better.
  """

  def __init__(self, folder: pathlib.Path, metric: str, comparison: str):
    self._folder = folder
    self._metric = metric
    self._sign = 1.0 if comparison == 'higher' else -1.0
    self._value = _read_best(self._folder / BEST_FILE, metric)

  def is_better(self, scalars: dict[str, float]) -> bool:
    """Whether these scores are better than all before."""
    return self._value is None or self._sign * scalars[self._metric] > self._sign * self._value

  def save(self, model: tf.Module, scalars: dict[str, float], step: int) -> None:
    """Saves the model and deletes the one before."""
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
