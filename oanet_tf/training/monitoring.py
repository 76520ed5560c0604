"""Logs a training to TensorBoard, `metrics.jsonl` and the terminal."""

import collections
import json
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tqdm

from oanet_tf import files
from oanet_tf.training.series import METRICS_FILE, read_records

# Scalars that the terminal's line leaves out, or shows in another form.
_NOT_IN_LINE = ('gradient_norm/', 'step_seconds/', 'images_per_second', 'learning_rate')


class Stopwatch:
  """Measures the time between calls of `lap`."""

  def __init__(self):
    self._last = time.perf_counter()

  def lap(self) -> float:
    """Seconds since the last call."""
    now = time.perf_counter()
    self._last, elapsed = now, now - self._last
    return elapsed


class TrainingLog:
  """Scalars by step, for TensorBoard (`train/`, `validation/`) and `metrics.jsonl`.

  Lines of `metrics.jsonl` after the given step are dropped, as a resumed run repeats these steps.

  Args:
    folder: the model folder; None logs nothing.
    step: the last step that was done.
  """

  def __init__(self, folder: pathlib.Path | None, step: int):
    self._folder = folder
    self._scored: set[int] = set()
    self._writers: dict[str, tf.summary.SummaryWriter] = {}
    self._recent: dict[str, list[float]] = collections.defaultdict(list)
    if folder:
      kept = _drop_later(folder / METRICS_FILE, step)
      self._scored = {record['step'] for record in kept if record.get('split') == 'validation'}

  def has_scores(self, step: int) -> bool:
    """Whether an earlier process has written the scores of an evaluation after this step."""
    return step in self._scored

  def add(self, scalars: Mapping[str, float], input_seconds: float, compute_seconds: float) -> None:
    """Records one step's losses and how long it waited for input and computed."""
    for name, value in scalars.items():
      self._recent[name].append(value)
    self._recent['step_seconds/input'].append(input_seconds)
    self._recent['step_seconds/compute'].append(compute_seconds)

  def write_interval(
    self, step: int, num_steps: int, batch_size: int, learning_rate: float
  ) -> None:
    """Writes the means over the steps since the last call, and prints them as one line."""
    scalars = {name: float(np.mean(values)) for name, values in self._recent.items()}
    self._recent.clear()
    seconds = scalars['step_seconds/input'] + scalars['step_seconds/compute']
    scalars['step_seconds/total'] = seconds
    scalars['images_per_second'] = batch_size / seconds
    scalars['learning_rate'] = learning_rate
    self.write('train', step, scalars)
    if self._folder:
      tqdm.tqdm.write(_line(step, num_steps, scalars))

  def write(
    self,
    split: str,
    step: int,
    scalars: Mapping[str, float],
    images: Mapping[str, np.ndarray] | None = None,
  ) -> None:
    """Writes scalars and, for TensorBoard, [H, W, 3] uint8 images of 'train' or 'validation'.

    Raises:
      InputError: if they cannot be written; it names the file or the folder.
    """
    if not self._folder:
      return
    path = self._folder / METRICS_FILE
    with files.writing(path), open(path, 'a') as file:
      file.write(json.dumps({'step': step, 'split': split, **scalars}) + '\n')
    with files.writing_by_tensorflow(self._folder / split):
      if split not in self._writers:
        self._writers[split] = tf.summary.create_file_writer(str(self._folder / split))
      with self._writers[split].as_default(step=step):
        for name, value in scalars.items():
          tf.summary.scalar(name, value)
        for name, image in (images or {}).items():
          tf.summary.image(name, image[None])
      self._writers[split].flush()


def _line(step: int, num_steps: int, scalars: Mapping[str, float]) -> str:
  losses = [
    f'{name.removeprefix("loss_")} {value:.3f}'
    for name, value in scalars.items()
    if not name.startswith(_NOT_IN_LINE)
  ]
  waiting = scalars['step_seconds/input'] / scalars['step_seconds/total']
  return (
    f'step {step}/{num_steps}  {"  ".join(losses)}  learning rate {scalars["learning_rate"]:.3g}  '
    f'{scalars["images_per_second"]:.1f} images/s, {waiting:.0%} of the time waiting for input'
  )


def _drop_later(path: pathlib.Path, step: int) -> list[dict[str, Any]]:
  """Drops the lines after a step; gives the others."""
  if not path.is_file():
    return []
  kept = [record for record in read_records(path) if record['step'] <= step]
  files.write_text(path, ''.join(json.dumps(record) + '\n' for record in kept))
  return kept
