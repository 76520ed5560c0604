"""What the end-to-end tests share: a tiny dataset as shards, and command lines run in place."""

import os
import pathlib
import sys

import pytest

from oanet_tf import errors
from oanet_tf.data import convert
from oanet_tf.data.occluded_scenes import dataset as occluded_scenes
from tests import small_model


def make_shards(folder: pathlib.Path, num_train: int = 6, num_shards: int | None = None) -> None:
  """OccludedScenes at 64 px in `folder/scenes`, converted to `folder/shards`."""
  occluded_scenes.generate(folder / 'scenes', num_train=num_train, num_val=3, image_size=64, seed=3)
  convert_scenes(folder, num_shards)


def convert_scenes(folder: pathlib.Path, num_shards: int | None = None) -> None:
  """OccludedScenes in `folder/scenes` converted to `folder/shards`."""
  for split in ('train', 'val'):
    annotations = folder / 'scenes' / 'annotations'
    convert.convert(
      folder / 'scenes' / split,
      annotations / f'panoptic_{split}.json',
      annotations / f'panoptic_{split}',
      folder / 'shards',
      split,
      instances_json=annotations / f'instances_{split}.json',
      num_shards=num_shards,
      num_workers=1,
    )


def training_overrides(folder: pathlib.Path, steps: int) -> str:
  """A small network on the shards of `make_shards`."""
  return ','.join(
    [
      small_model.OVERRIDES,
      f'task.train_data.input_path={folder}/shards/train-*',
      f'task.validation_data.input_path={folder}/shards/val-*',
      f'trainer.train_steps={steps},trainer.summary_interval=2,trainer.checkpoint_interval=3',
      'trainer.validation_interval=100,trainer.gradient_norms=true',
      # Detections from the first step on, so that there is something to merge.
      'task.model.fusion.score_threshold=0.1',
    ]
  )


def run_command(monkeypatch, capsys, main, *arguments) -> tuple[int, str, str]:
  """-> exit code, standard output, standard error."""
  monkeypatch.setattr(sys, 'argv', ['command', *map(str, arguments)])
  monkeypatch.setattr(os, '_exit', sys.exit)
  with pytest.raises(SystemExit) as stop:
    errors.run(main)
  captured = capsys.readouterr()
  return stop.value.code, captured.out, captured.err


def one_line_error(outcome) -> str:
  """The message of a command that must have failed with exit code 2 and one line."""
  code, _, stderr = outcome
  assert code == 2
  lines = [line for line in stderr.splitlines() if line.startswith('error: ')]
  assert len(lines) == 1 and 'Traceback' not in stderr
  return lines[0]
