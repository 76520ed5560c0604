"""From rows of tables to the trainings and evaluations that they need, without repetition."""

import functools
import json
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

from oanet_tf.config import check as config_check
from oanet_tf.config.text import parse_override, read_yaml
from oanet_tf.errors import InputError
from oanet_tf.paper.tables import CONFIGS, Dataset, Row

RESULTS_FILE = 'results.json'
_STEPWISE = 'trainer.optimizer_config.learning_rate.stepwise.boundaries'
_WARMUP = 'trainer.optimizer_config.warmup.linear.warmup_steps'


class Training(NamedTuple):
  """A training, except for its seed.

  Attributes:
    name: of its folder.
    experiment: name of a registered experiment.
    configs: names in configs/paper/, applied over the experiment.
    backbone: of a network, 'small' or 'large'; '' for the ranking module alone.
  """

  name: str
  experiment: str
  configs: tuple[str, ...]
  backbone: str


class Scoring(NamedTuple):
  """An evaluation, except for its seed.

  Attributes:
    network: what is evaluated.
    srm: training of the ranking module; None for the network's own module.
    config: name in configs/paper/, applied over the network's settings; '' for none.
  """

  network: Training
  srm: Training | None
  config: str

  @property
  def training(self) -> Training:
    """The training whose folder has the results."""
    return self.srm or self.network

  @property
  def folder(self) -> str:
    """Name of the results' folder in the training's folder."""
    return f'evaluation_{self.config}' if self.config else 'evaluation'


class Job(NamedTuple):
  """A training with its seed, and the evaluations whose results are in its folder."""

  training: Training
  seed: int
  scorings: tuple[Scoring, ...]


class Options(NamedTuple):
  """Settings for all trainings of a command.

  Attributes:
    model_dir: has a folder for each training, with one for each seed in it.
    train_steps: steps of each training; 0 for those of its experiment.
    config_files: applied over the networks' experiments, before the rows' configs.
    params_override: applied last.
    init_checkpoints: of the backbones 'small' and 'large'; empty to train from scratch.
  """

  model_dir: pathlib.Path
  train_steps: int = 0
  config_files: tuple[str, ...] = ()
  params_override: str = ''
  init_checkpoints: tuple[str, ...] = ()

  def folder(self, training: Training, seed: int) -> pathlib.Path:
    """The model folder of a training."""
    return self.model_dir / training.name / f'seed_{seed}'

  def results_path(self, scoring: Scoring, seed: int) -> pathlib.Path:
    """The file that an evaluation writes last."""
    return self.folder(scoring.training, seed) / scoring.folder / RESULTS_FILE


def scoring_of(row: Row, dataset: Dataset) -> Scoring:
  """The evaluation that a row shows, on a dataset."""
  variant = dataset.variants.get(row.config)
  of_row = variant.config if variant else row.config
  of_backbone = dataset.backbones[row.backbone].config
  configs = tuple(name for name in (of_row, of_backbone) if name)
  network = Training('_'.join(configs) or 'network', dataset.experiment, configs, row.backbone)
  srm = Training(row.srm, dataset.srm_experiment, (row.srm,), '') if row.srm else None
  return Scoring(network, srm, row.scoring)


def plan(scorings: Iterable[Scoring], seeds: int) -> list[Job]:
  """The jobs that evaluations need, for each seed; networks come before ranking modules."""
  scorings = list(dict.fromkeys(scorings))
  trainings = [one.network for one in scorings] + [one.srm for one in scorings if one.srm]
  return [
    Job(training, seed, tuple(one for one in scorings if one.training == training))
    for seed in range(seeds)
    for training in dict.fromkeys(trainings)
  ]


def training_arguments(
  training: Training, seed: int, options: Options
) -> tuple[list[str], config_check.Settings]:
  """Arguments of `python -m oanet_tf.train` without `--mode`, and the settings that they result in.

  Raises:
    InputError: if the settings are invalid.
  """
  files = [config_path(name) for name in training.configs]
  if training.backbone:
    files = [*options.config_files, *files]
  changes = parse_override(options.params_override, config_check.OVERRIDE)
  _set(changes, 'task.seed', seed)
  if training.backbone and options.init_checkpoints:
    number = ('small', 'large').index(training.backbone)
    _set(changes, 'task.init_checkpoint', options.init_checkpoints[number])
    _set(changes, 'task.init_checkpoint_modules', 'backbone')
  if options.train_steps:
    settings = config_check.resolve_experiment(training.experiment, files, json.dumps(changes))
    for key, value in shortened(settings, options.train_steps).items():
      _set(changes, key, value)
  override = json.dumps(changes)
  settings = config_check.resolve_experiment(training.experiment, files, override)
  arguments = ['--experiment', training.experiment]
  for file in files:
    arguments += ['--config_file', file]
  arguments += ['--model_dir', str(options.folder(training, seed)), '--params_override', override]
  return arguments, settings


def shortened(settings: config_check.Settings, train_steps: int) -> dict[str, object]:
  """Overrides for another number of steps, which stretch the learning rate's schedule to it."""
  factor = train_steps / max(1, settings['trainer.train_steps'].value)
  changes: dict[str, object] = {'trainer.train_steps': train_steps}
  active = config_check.active(settings)
  if _STEPWISE in active:
    boundaries: list[int] = []
    for boundary in active[_STEPWISE].value:
      boundaries.append(max([round(factor * boundary), *(last + 1 for last in boundaries[-1:]), 1]))
    changes[_STEPWISE] = boundaries
  if _WARMUP in active:
    changes[_WARMUP] = round(factor * active[_WARMUP].value)
  for schedule in ('cosine', 'exponential', 'polynomial'):
    key = f'trainer.optimizer_config.learning_rate.{schedule}.decay_steps'
    if key in active:
      changes[key] = max(1, round(factor * active[key].value))
  return changes


def scoring_arguments(scoring: Scoring, seed: int, options: Options) -> list[str]:
  """Arguments of `python -m oanet_tf.evaluate`."""
  arguments = ['--model_dir', str(options.folder(scoring.network, seed))]
  arguments += ['--output_dir', str(options.results_path(scoring, seed).parent)]
  if scoring.srm:
    arguments += ['--ranking_module', str(options.folder(scoring.srm, seed))]
  if scoring.config:
    override = json.dumps(read_yaml(config_path(scoring.config)))
    arguments += ['--params_override', override]
  return arguments


def config_path(name: str) -> str:
  """The path of a file in configs/paper/.

  Raises:
    InputError: if there is no such file.
  """
  path = CONFIGS / f'{name}.yaml'
  if not path.is_file():
    raise InputError(
      f'{path}: is not there; run this from a checkout, as the package has no configs/'
    )
  return str(path)


def check_folder(settings: config_check.Settings, folder: pathlib.Path) -> None:
  """Checks that a training in the folder, if there is one, has these settings (`runtime` aside).

  Raises:
    InputError: if not; it names a key that differs.
  """
  if not (folder / config_check.PARAMS_FILE).is_file():
    return
  found = config_check.resolve_experiment(
    config_check.BASE_EXPERIMENT, [config_check.params_path(folder)]
  )
  found, wanted = _values(found), _values(settings)
  keys = [key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key)]
  if keys:
    # The shortest key is the cause: trainer.train_steps, not what was derived from it.
    key = min(keys, key=lambda key: (len(key), key))
    raise InputError(
      f'{folder}: was trained with {key} {found.get(key)!r}, not {wanted.get(key)!r}; give the '
      'same settings, or another --model_dir'
    )


def _values(settings: config_check.Settings) -> dict[str, object]:
  return {
    key: list(setting.value) if isinstance(setting.value, tuple) else setting.value
    for key, setting in config_check.active(settings).items()
    if not key.startswith('runtime.')
  }


def _set(changes: dict, key: str, value: object) -> None:
  *groups, name = key.split('.')
  for group in groups:
    changes = changes.setdefault(group, {})
  changes[name] = value


@functools.cache
def last_step(training: Training, options: Options) -> int:
  """The number of steps of a training."""
  _, settings = training_arguments(training, 0, options)
  return settings['trainer.train_steps'].value
