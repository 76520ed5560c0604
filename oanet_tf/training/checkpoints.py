"""The checkpoints of a model folder: the newest that is readable, and the best."""

import json
import logging
import pathlib
import re
import shutil

import tensorflow as tf

from oanet_tf import files
from oanet_tf.data.json_file import read_json_object
from oanet_tf.errors import InputError, first_line
from oanet_tf.files import FilePath

log = logging.getLogger(__name__)

PREFIX = 'ckpt'
BEST_FILE = 'best.json'


def save(
  checkpoint: tf.train.Checkpoint, folder: pathlib.Path, step: int, max_to_keep: int
) -> None:
  """Writes `ckpt-<step>`, and deletes older ones.

  TensorFlow's `CheckpointManager` leaves half a checkpoint when the disk is full, and deletes
  nothing in a folder whose name it takes for a pattern.

  Args:
    checkpoint: what to write.
    folder: is made if needed.
    step: the number of the checkpoint.
    max_to_keep: how many stay.

  Raises:
    InputError: if it cannot be written. Nothing of it is left then, and older ones stay.
  """
  path, hidden = folder / f'{PREFIX}-{step}', f'.{PREFIX}.part'
  files.make_folder(folder)
  _remove(folder, f'{hidden}*')  # A process that was killed may have left some.
  checkpoint.save_counter.assign_add(1)  # Without it, `restore` misses it.
  try:
    with files.writing_by_tensorflow(path):
      checkpoint.write(str(folder / hidden))
      # With the index, which comes last, the checkpoint is there.
      for part in sorted(folder.glob(f'{hidden}.*')):
        part.replace(folder / (path.name + part.name.removeprefix(hidden)))
  finally:
    _remove(folder, f'{hidden}*')
  older = sorted((number for number in _steps(folder) if number < step), reverse=True)
  kept = [f'{PREFIX}-{number}' for number in reversed([step, *older[: max_to_keep - 1]])]
  # For `tf.train.latest_checkpoint`.
  state = [f'model_checkpoint_path: "{kept[-1]}"']
  state += [f'all_model_checkpoint_paths: "{name}"' for name in kept]
  files.write_text(folder / 'checkpoint', '\n'.join(state) + '\n')
  for number in older[max_to_keep - 1 :]:
    _remove(folder, f'{PREFIX}-{number}.index')
    _remove(folder, f'{PREFIX}-{number}.data-*')


def _remove(folder: pathlib.Path, pattern: str) -> None:
  for path in folder.glob(pattern):
    if path.is_dir():
      shutil.rmtree(path, ignore_errors=True)
    else:
      path.unlink(missing_ok=True)


def _steps(folder: FilePath) -> list[int]:
  """The numbers of a folder's checkpoints."""
  names = (path.name for path in pathlib.Path(folder).glob(f'{PREFIX}-*.index'))
  return [
    int(match[1]) for name in names if (match := re.fullmatch(rf'{PREFIX}-(\d+)\.index', name))
  ]


def newest_readable(folder: FilePath) -> str | None:
  """Path of the newest checkpoint that can be read in full; None if there is none.

  A warning names newer ones that cannot, such as those of a process that died while writing.
  """
  for step in sorted(_steps(folder), reverse=True):
    path = str(pathlib.Path(folder, f'{PREFIX}-{step}'))
    try:
      reader = tf.train.load_checkpoint(files.for_tensorflow(path))
      for name in reader.get_variable_to_shape_map():
        reader.get_tensor(name)
    except (tf.errors.OpError, ValueError, RuntimeError, LookupError) as error:
      log.warning('%s: cannot be read (%s); trying the one before', path, first_line(error))
    else:
      return path
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
    save(tf.train.Checkpoint(model=model), self._folder, step, max_to_keep=1)
    best = {'step': step, 'metric': self._metric, 'value': self._value}
    files.write_text(self._folder / BEST_FILE, json.dumps(best, indent=1) + '\n')


def _read_best(path: pathlib.Path, metric: str) -> float | None:
  """The best score so far; None if there is none of this metric."""
  if not path.is_file():
    return None
  try:
    best = read_json_object(path)
    value = float(best['value']) if best['metric'] == metric else None
  except (InputError, KeyError, TypeError, ValueError):
    log.warning('%s: cannot be read, so the next evaluation counts as the best', path)
    return None
  return value
