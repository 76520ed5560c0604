"""Checkpoints of TensorFlow among fetched files."""

import pathlib
import re

from oanet_tf.errors import InputError


def newest(folder: pathlib.Path) -> pathlib.Path:
  """The checkpoint of the most steps in a folder or below, without the ending `.index`.

  Raises:
    InputError: if there is none; it names the folder.
  """
  # Archives made on macOS have a file ._NAME for each NAME.
  indices = [path for path in folder.rglob('*.index') if not path.name.startswith('._')]
  if not indices:
    raise InputError(f'{folder}: has no checkpoint; remove it and start again')
  return max(indices, key=_numbers).with_suffix('')


def _numbers(path: pathlib.Path) -> tuple[list[int], pathlib.Path]:
  return [int(digits) for digits in re.findall(r'\d+', path.name)], path
