"""Command line of training: `oanet train --help`."""

import argparse
import itertools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from oanet_tf import errors, files
from oanet_tf.arguments import ArgumentParser, add_config_file, add_params_override, log_to_stderr
from oanet_tf.config import check as config_check
from oanet_tf.data import shard_files
from oanet_tf.data.categories import CATEGORIES_FILE, PanopticCategories
from oanet_tf.data.class_prior import load_table
from oanet_tf.files import FilePath, as_list
from oanet_tf.model_folder import (
  check_checkpoint,
  check_is_training,
  check_weights_exist,
  find_categories,
  has_checkpoint,
)

SPLITS = ('train_data', 'validation_data')
MODES = ('train', 'eval', 'train_and_eval')


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
  """The flags are those of the Model Garden's trainers."""
  parser = ArgumentParser(
    prog='oanet train',
    description='Trains and evaluates OANet.',
    epilog='Example: oanet train --experiment oanet_synthetic --model_dir runs/first '
    '--params_override trainer.train_steps=500,task.model.spatial_ranking.convolution=3x3',
  )
  parser.add_argument(
    '--experiment',
    help=f'one of {", ".join(config_check.experiment_names())}; not required for --mode eval, '
    "which takes the model folder's params.yaml by default",
  )
  add_config_file(parser, '; of several, the later file wins')
  add_params_override(parser, 'to the files')
  parser.add_argument(
    '--model_dir',
    required=True,
    help='folder for params.yaml, checkpoints, TensorBoard events and evaluation; '
    'training continues from a checkpoint there',
  )
  parser.add_argument(
    '--mode',
    choices=MODES,
    default='train_and_eval',
    help='(default: %(default)s)',
  )
  parsed = parser.parse_args(arguments)
  if not parsed.experiment and parsed.mode != 'eval':
    parser.error('--experiment is required to train')
  return parsed


def train(
  model_dir: FilePath,
  experiment: str | None = None,
  *,
  config_file: FilePath | Sequence[FilePath] = (),
  params_override: str = '',
  mode: str = 'train_and_eval',
) -> dict[str, dict[str, Any]] | None:
  """Trains and evaluates a network.

  Args:
    model_dir: folder for `params.yaml`, checkpoints, TensorBoard's events and `evaluation/`.
      Training goes on from a checkpoint there.
    experiment: a registered one, such as 'oanet_synthetic' or 'oanet_r50fpn_coco'; with
      `mode='eval'`, None takes what the folder's `params.yaml` says.
    config_file: YAML file or files with changes; of several, the later wins.
    params_override: further changes, as `a.b=1,c.d=[2,3]` or YAML text.
    mode: 'train', 'eval' or 'train_and_eval'.

  Returns:
    For each monitored fusion the scores of the last evaluation, as `panoptic_quality` returns them;
    None with `mode='train'`.

  Raises:
    InputError: if a setting, a file or the data is wrong; it names it.
  """
  if mode not in MODES:
    raise errors.InputError(f'mode is one of {", ".join(MODES)}, not {mode!r}')
  config_files = as_list(config_file)
  if not experiment:
    if mode != 'eval':
      known = ', '.join(config_check.experiment_names())
      raise errors.InputError(f'an experiment is required to train; known are {known}')
    experiment = config_check.BASE_EXPERIMENT
    config_files = [config_check.params_path(model_dir), *config_files]
  settings = config_check.resolve_experiment(experiment, config_files, params_override)
  values = {key: setting.value for key, setting in settings.items()}
  _check_files(values, pathlib.Path(model_dir), mode)
  if values['runtime.enable_xla']:
    # TensorFlow reads this when it starts. Without it, XLA does not compile for the CPU.
    os.environ['TF_XLA_FLAGS'] = f'{os.environ.get("TF_XLA_FLAGS", "")} --tf_xla_cpu_global_jit'
  # Loading TensorFlow takes seconds, so flags and configuration are checked first.
  from oanet_tf.config import experiments
  from oanet_tf.training import loop

  config = experiments.load_experiment(experiment, config_files, params_override)
  return loop.run(config, model_dir, mode)


def _check_files(values: dict[str, Any], model_dir: pathlib.Path, mode: str) -> None:
  """Raises `InputError` if something is missing that is read, or nothing can be written."""
  paths = {split: values[f'task.{split}.input_path'] for split in SPLITS}
  splits = {
    split: shard_files.list_shards(paths[split])
    for split, unused_mode in zip(SPLITS, ('eval', 'train'), strict=True)
    if mode != unused_mode
  }
  files.check_output_folder(model_dir, list(itertools.chain(*splits.values())))
  categories = find_categories(
    values['task.categories'], next(filter(None, paths.values()), ''), model_dir
  )
  if mode == 'eval' or has_checkpoint(model_dir):
    check_checkpoint(model_dir)
    categories.check_same(PanopticCategories.from_json(model_dir / CATEGORIES_FILE))
  if mode != 'eval':
    check_is_training(model_dir)
  for split, shards in splits.items():
    shard_files.check_shards(shards, categories, values[f'task.{split}.skip_damaged'])
  if path := values['task.model.fusion.class_prior']:
    load_table(path, categories, ['class_prior'])
  initial = values['task.init_checkpoint']
  if initial and mode != 'eval' and not has_checkpoint(model_dir):
    check_weights_exist(initial)


def main() -> None:
  arguments = parse_arguments()
  log_to_stderr()
  train(**vars(arguments))


if __name__ == '__main__':
  errors.run(main)
