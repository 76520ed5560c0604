"""The commands that are struck, and what is compared of their results."""

import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from oanet_tf.data.occluded_scenes import dataset as occluded_scenes
from oanet_tf.training import checkpoints
from tests import end_to_end
from tests.faults import processes

STEPS = 6


class Command(NamedTuple):
  """A command line with an output folder.

  Attributes:
    arguments: of `oanet`, from the ground and the output folder.
    again: further arguments where something is left of an earlier run.
    result: what is compared, from an output folder; None takes the bytes of all files.
    shards: glob of those that it reads, in the ground; None if it reads none.
    growing: patterns of files that differ while the work is not done. All others are there whole
      or not at all.
    weight: how many of 100 faults it gets.
  """

  arguments: Callable[[pathlib.Path, pathlib.Path], list]
  weight: int
  again: tuple[str, ...] = ()
  result: Callable[[pathlib.Path], dict] | None = None
  shards: str | None = None
  growing: tuple[str, ...] = ()

  def results(self, output: pathlib.Path) -> dict:
    return (self.result or contents)(output)


def make_ground(folder: pathlib.Path) -> None:
  """What the commands read, but for a trained network: scenes and shards."""
  occluded_scenes.generate(folder / 'scenes', num_train=12, num_val=6, image_size=64, seed=3)
  end_to_end.convert_scenes(folder, num_shards=3)
  shutil.copytree(folder / 'shards', folder / 'kept')


def contents(folder: pathlib.Path) -> dict[str, str]:
  """The hash of each file, by its path in the folder."""
  return {
    path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }


def _convert(ground, output, num_workers=1):
  scenes = ground / 'scenes'
  return [
    *('convert', '--image_dir', scenes / 'train', '--output_dir', output, '--split', 'train'),
    *('--panoptic_json', scenes / 'annotations' / 'panoptic_train.json'),
    *('--panoptic_dir', scenes / 'annotations' / 'panoptic_train'),
    *('--instances_json', scenes / 'annotations' / 'instances_train.json'),
    *('--num_shards', 4, '--num_workers', num_workers),
  ]


def _convert_labels(ground, output):
  scenes = ground / 'scenes'
  return [
    *('convert', '--image_dir', scenes / 'train', '--output_dir', output, '--split', 'train'),
    *('--instances_json', scenes / 'annotations' / 'instances_train.json'),
    *('--num_shards', 2, '--num_workers', 2),
  ]


def _predict(ground, output):
  pictures = ground / 'scenes' / 'train'
  return ['predict', '--images', pictures, '--output_dir', output, '--batch_size', 2]


def _pq(ground, output):
  annotations = ground / 'scenes' / 'annotations' / 'panoptic_train'
  json_path = annotations.with_suffix('.json')
  return [
    *('pq', '--gt_json', json_path, '--pred_json', json_path, '--num_workers', 1),
    *('--output', output / 'scores.json'),
  ]


def _inspect(ground, output):
  return ['inspect', ground / 'shards' / 'train-*', '--output_dir', output]


def _evaluate(ground, output):
  return ['evaluate', '--model_dir', ground / 'model', '--output_dir', output]


def _export(name):
  def arguments(ground, output):
    return [*('export', '--model_dir', ground / 'model', '--export_dir', output, '--formats', name)]

  return arguments


def training_overrides(ground: pathlib.Path) -> str:
  return (
    f'{end_to_end.training_overrides(ground, STEPS)},runtime.deterministic=true,'
    'trainer.checkpoint_interval=2,trainer.validation_interval=3,trainer.gradient_norms=false'
  )


def _train(mode):
  def arguments(ground, output):
    return [
      *('train', '--experiment', 'oanet_synthetic', '--model_dir', output),
      *('--params_override', f'{training_overrides(ground)},task.mode={mode}'),
    ]

  return arguments


def train_as_worker(ground: pathlib.Path, output: pathlib.Path) -> list:
  """A training that two workers can share, without evaluation."""
  overrides = (
    f'{training_overrides(ground)},runtime.deterministic=false,task.model.batch_norm=frozen'
  )
  return [
    *('train', '--experiment', 'oanet_synthetic', '--model_dir', output, '--mode', 'train'),
    *('--params_override', overrides),
  ]


def trained(folder: pathlib.Path) -> dict:
  """Weights and slots, scores and settings of a training; not its times."""
  found = trained_but_for_rounding(folder)
  for kind, path in (('newest', folder), ('best', folder / 'best')):
    newest = checkpoints.newest(path)
    found[f'{kind} step'] = newest.rpartition('-')[2]
    found[f'{kind} weights'] = {
      name: hashlib.sha256(values.tobytes()).hexdigest() for name, values in weights(newest).items()
    }
  return found


def trained_but_for_rounding(folder: pathlib.Path) -> dict:
  """Scores, settings, and which steps were logged."""
  found: dict = {
    name: digest
    for name, digest in contents(folder).items()
    if 'ckpt-' not in name
    and not name.startswith(('checkpoint', 'train/', 'validation/', 'metrics.jsonl'))
  }
  lines = (folder / 'metrics.jsonl').read_text().splitlines()
  records = [json.loads(line) for line in lines]
  found['scores'] = [record for record in records if record['split'] == 'validation']
  found['logged'] = [record['step'] for record in records if record['split'] == 'train']
  return found


def weights(path: str) -> dict[str, np.ndarray]:
  """Each tensor of a checkpoint but for how often it was saved."""
  reader = tf.train.load_checkpoint(path)
  return {
    name: np.asarray(reader.get_tensor(name))
    for name in reader.get_variable_to_shape_map()
    if 'OBJECT_GRAPH' not in name and 'save_counter' not in name
  }


def exported(folder: pathlib.Path) -> dict:
  """Of each version its files, weights and comparison; graphs have no fixed order, nor size."""
  entries = json.loads((folder / 'export.json').read_text())
  versions = sorted(path for path in folder.glob('*/*') if path.name.isdecimal())
  assert sorted(entries) == [path.relative_to(folder).as_posix() for path in versions]
  found = []
  for path in versions:
    entry = entries[path.relative_to(folder).as_posix()]
    names = sorted(contents(path))
    same = {key: value for key, value in entry.items() if key not in ('version', 'bytes')}
    found.append({'names': names, **same})
  assert found
  # All versions are the same.
  assert all(one == found[0] for one in found)
  return found[0]


COMMANDS = {
  'convert': Command(_convert, 15, growing=('train_summary.json',)),
  'convert_labels': Command(_convert_labels, 9, growing=('train_summary.json',)),
  'predict': Command(_predict, 15, again=('--overwrite',), growing=('predictions.json',)),
  'pq': Command(_pq, 3, again=('--overwrite',)),
  'inspect': Command(_inspect, 9, again=('--overwrite',), shards='train-*'),
  'evaluate': Command(_evaluate, 15, shards='val-*'),
  'export': Command(_export('savedmodel'), 8, result=exported, shards='val-*', growing=('*',)),
  'export_tflite': Command(
    _export('tflite_float32'), 6, result=exported, shards='val-*', growing=('*',)
  ),
  'train': Command(_train('panoptic'), 8, result=trained, shards='*-*', growing=('*',)),
  'train_srm': Command(_train('srm_only'), 12, result=trained, shards='*-*', growing=('*',)),
}


def reference_of(command: Command, ground: pathlib.Path, output: pathlib.Path):
  """-> the undisturbed result, and how the process ended."""
  temporary = output.with_name(f'{output.name}_temporary')
  temporary.mkdir()
  process = processes.Process(command.arguments(ground, output), output, temporary)
  outcome = process.wait()
  assert outcome.code == 0, outcome.printed
  assert not processes.hidden(output) and not any(temporary.iterdir())
  shutil.rmtree(temporary)
  return command.results(output), outcome
