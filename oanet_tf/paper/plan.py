"""From rows of tables to the trainings and evaluations that they need, without repetition."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

from oanet_tf.config import check as config_check
from oanet_tf.config.text import parse_override, read_yaml
from oanet_tf.errors import InputError
from oanet_tf.paper.tables import CONFIGS, PAPERS_FUSION, Dataset, Row

# What `oanet_tf.train` says of a loss or a weight that is not finite; written by `runs`.
DIVERGED_FILE = 'diverged.txt'
_STEPWISE = 'trainer.optimizer_config.learning_rate.stepwise.boundaries'
_WARMUP = 'trainer.optimizer_config.warmup.linear.warmup_steps'


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


@dataclasses.dataclass(frozen=True)
class Training:
  """A training of a network, or of the ranking module alone.

  Attributes:
    name: of its folder.
    experiment: name of a registered experiment.
    configs: names in configs/paper/, applied over the experiment.
    backbone: of a network, 'small' or 'large'; '' for the ranking module alone.
    seed: of the training.
    options: of the command.
  """

  name: str
  experiment: str
  configs: tuple[str, ...]
  backbone: str
  seed: int
  options: Options

  @property
  def folder(self) -> pathlib.Path:
    """The model folder."""
    return self.options.model_dir / self.name / f'seed_{self.seed}'

  @property
  def config_files(self) -> list[str]:
    """Applied over the experiment, in this order."""
    files = [config_path(name) for name in self.configs]
    if not self.backbone:
      return files
    return [config_path(PAPERS_FUSION), *self.options.config_files, *files]

  @functools.cached_property
  def params_override(self) -> str:
    """Applied last, as JSON."""
    changes = parse_override(self.options.params_override, config_check.OVERRIDE)
    _set(changes, 'task.seed', self.seed)
    if self.backbone and self.options.init_checkpoints:
      number = ('small', 'large').index(self.backbone)
      _set(changes, 'task.init_checkpoint', self.options.init_checkpoints[number])
      _set(changes, 'task.init_checkpoint_modules', 'backbone')
    if self.options.train_steps:
      settings = config_check.resolve_experiment(
        self.experiment, self.config_files, json.dumps(changes)
      )
      for key, value in _shortened(settings, self.options.train_steps).items():
        _set(changes, key, value)
    return json.dumps(changes)

  @functools.cached_property
  def settings(self) -> config_check.Settings:
    """All settings; raises `InputError` if they are invalid."""
    return config_check.resolve_experiment(self.experiment, self.config_files, self.params_override)

  @property
  def last_step(self) -> int:
    """The number of steps."""
    return self.settings['trainer.train_steps'].value

  @property
  def arguments(self) -> list[str]:
    """Arguments of `oanet train` without `--mode`."""
    files = [argument for file in self.config_files for argument in ('--config_file', file)]
    folder = ['--model_dir', str(self.folder)]
    override = ['--params_override', self.params_override]
    return ['--experiment', self.experiment, *files, *folder, *override]

  @property
  def has_diverged(self) -> bool:
    """Whether it ended at a loss or a weight that is not finite."""
    return (self.folder / DIVERGED_FILE).is_file()

  @property
  def has_ended(self) -> bool:
    """Whether it ended, at its last step or by diverging."""
    return (self.folder / f'ckpt-{self.last_step}.index').is_file() or self.has_diverged

  def check_folder(self) -> None:
    """Checks that a training in the folder, if there is one, has these settings (`runtime` aside).

    Raises:
      InputError: if not; it names a key that differs.
    """
    if not (self.folder / config_check.PARAMS_FILE).is_file():
      return
    found = config_check.resolve_experiment(
      config_check.BASE_EXPERIMENT, [config_check.params_path(self.folder)]
    )
    found, wanted = _values(found), _values(self.settings)
    keys = [key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key)]
    if keys:
      # The shortest key is the cause: trainer.train_steps, not what was derived from it.
      key = min(keys, key=lambda key: (len(key), key))
      raise InputError(
        f'{self.folder}: was trained with {key} {found.get(key)!r}, not {wanted.get(key)!r}; give '
        'the same settings, or another --model_dir'
      )


class Scoring(NamedTuple):
  """An evaluation.

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
  def results_path(self) -> pathlib.Path:
    """The file that is written last."""
    name = f'evaluation_{self.config}' if self.config else 'evaluation'
    return self.training.folder / name / 'results.json'

  @property
  def arguments(self) -> list[str]:
    """Arguments of `oanet evaluate`."""
    arguments = ['--model_dir', str(self.network.folder)]
    arguments += ['--output_dir', str(self.results_path.parent)]
    if self.srm:
      arguments += ['--ranking_module', str(self.srm.folder)]
    if self.config:
      arguments += ['--params_override', json.dumps(read_yaml(config_path(self.config)))]
    return arguments

  @property
  def has_diverged(self) -> bool:
    """Whether one of the trainings that it needs diverged."""
    return self.network.has_diverged or self.training.has_diverged

  @property
  def is_done(self) -> bool:
    """Whether it has its results, or will have none since a training diverged."""
    return self.results_path.is_file() or self.has_diverged


class Job(NamedTuple):
  """A training, and the evaluations whose results are in its folder."""

  training: Training
  scorings: tuple[Scoring, ...]

  @property
  def is_done(self) -> bool:
    return self.training.has_ended and all(scoring.is_done for scoring in self.scorings)

  @property
  def state(self) -> str:
    """'done', 'diverged', 'trained', 'started' or 'to do'."""
    if self.training.has_diverged:
      return 'diverged'
    if self.is_done:
      return 'done'
    if self.training.has_ended:
      return 'trained'
    return 'started' if any(self.training.folder.glob('ckpt-*.index')) else 'to do'


def scoring_of(row: Row, dataset: Dataset, options: Options, seed: int) -> Scoring:
  """The evaluation that a row shows, on a dataset."""
  variant = dataset.variants.get(row.config)
  of_row = variant.config if variant else row.config
  of_backbone = dataset.backbones[row.backbone].config
  configs = tuple(name for name in (of_row, of_backbone) if name)
  name = '_'.join(configs) or 'network'
  network = Training(name, dataset.experiment, configs, row.backbone, seed, options)
  srm = row.srm and Training(row.srm, dataset.srm_experiment, (row.srm,), '', seed, options)
  return Scoring(network, srm or None, row.scoring)


def plan(rows: Iterable[Row], dataset: Dataset, options: Options, seeds: int) -> list[Job]:
  """The jobs that rows need, seed after seed; networks come before ranking modules."""
  rows, jobs = list(rows), []
  for seed in range(seeds):
    scorings = list(dict.fromkeys(scoring_of(row, dataset, options, seed) for row in rows))
    trainings = [one.network for one in scorings] + [one.srm for one in scorings if one.srm]
    jobs += [
      Job(training, tuple(one for one in scorings if one.training == training))
      for training in dict.fromkeys(trainings)
    ]
  return jobs


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


def _shortened(settings: config_check.Settings, train_steps: int) -> dict[str, object]:
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
