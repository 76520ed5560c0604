"""The registered experiments, and how files and overrides change them.

An experiment is a file in `defaults/`. It has the changes to the defaults in `definitions.py`, or
to another experiment, its `base`. To add an experiment, add a file.
"""

import dataclasses
import functools
import json
import typing
from collections.abc import Sequence

from official.core import config_definitions, exp_factory
from official.modeling import hyperparams

from oanet_tf import errors, files
from oanet_tf.config import check as config_check
from oanet_tf.config.check import Setting, Settings
from oanet_tf.config.definitions import OANetTask, Runtime, Trainer
from oanet_tf.errors import InputError

UPDATE_COMMAND = 'python -m oanet_tf.config.experiments'

_HEADER = f"""\
# Every key of a configuration with its kind and default. Made from the dataclasses in
# definitions.py by `{UPDATE_COMMAND}`. What they mean stands there and in the Model Garden.
"""


def _defaults() -> config_definitions.ExperimentConfig:
  return config_definitions.ExperimentConfig(task=OANetTask(), trainer=Trainer(), runtime=Runtime())


def _from_file(experiment: str) -> config_definitions.ExperimentConfig:
  config = _defaults()
  config.override(config_check.to_nested(config_check.experiment_settings(experiment)))
  return config


for _name in config_check.experiment_names():
  exp_factory.register_config_factory(_name)(functools.partial(_from_file, _name))


def load_experiment(
  experiment: str, config_files: Sequence[str] = (), params_override: str = ''
) -> config_definitions.ExperimentConfig:
  """A registered experiment, changed by YAML files and then by an override string.

  Args:
    experiment: one of `defaults/`, or one registered with the Model Garden's
      `exp_factory.register_config_factory` whose task is an `OANetTask`, whose trainer is a
      `Trainer` and whose runtime is a `Runtime`.
    config_files: YAML files, applied in turn.
    params_override: `a.b=1,c.d=[2,3]`, or YAML or JSON text.

  Raises:
    InputError: as `config_check.resolve`, and for an unknown experiment.
  """
  try:
    config = exp_factory.get_exp_config(experiment)
  except LookupError:
    known = ', '.join(config_check.experiment_names())
    raise InputError(f'there is no experiment {experiment!r}; known are {known}') from None
  parts = ((config.task, OANetTask), (config.trainer, Trainer), (config.runtime, Runtime))
  if not all(isinstance(part, kind) for part, kind in parts):
    raise InputError(f'{experiment}: is not an experiment of OANet')
  return override(config, config_files, params_override)


def override(
  config: config_definitions.ExperimentConfig,
  config_files: Sequence[str] = (),
  params_override: str = '',
) -> config_definitions.ExperimentConfig:
  """Changes a configuration by YAML files and then by an override string, and returns it.

  Raises:
    InputError: as `config_check.resolve`.
  """
  settings = config_check.resolve(describe(config), config_files, params_override)
  config.override(config_check.to_nested(settings))
  return config


def describe(config: hyperparams.Config) -> Settings:
  """Every key of a configuration with its kind and value, also in groups that are not chosen."""
  settings = {}
  annotations = typing.get_type_hints(type(config))
  for field in dataclasses.fields(config):
    annotation, value = annotations[field.name], getattr(config, field.name)
    kind = _kind(annotation)
    if value is None and 'null' not in kind:
      kind += ' or null'
    group = value if isinstance(value, hyperparams.Config) else _missing_group(annotation)
    if kind != 'group':
      settings[field.name] = Setting(kind, {} if isinstance(value, hyperparams.Config) else value)
    if group is not None:
      of_group = describe(group)
      settings |= {f'{field.name}.{key}': setting for key, setting in of_group.items()}
  return settings


def _kind(annotation: object) -> str:
  arguments = typing.get_args(annotation)
  if isinstance(annotation, type) and not arguments:
    if annotation is type(None):
      return 'null'
    return 'group' if issubclass(annotation, hyperparams.Config) else annotation.__name__
  if typing.get_origin(annotation) in (list, tuple):
    return f'list of {_kind(arguments[0])}'
  return ' or '.join(_kind(argument) for argument in arguments)


def _missing_group(annotation: object) -> hyperparams.Config | None:
  """The default of an optional group."""
  for argument in typing.get_args(annotation):
    if isinstance(argument, type) and issubclass(argument, hyperparams.Config):
      return argument()
  return None


def write_all_keys() -> None:
  """Brings `defaults/all_keys.yaml` up to date with the dataclasses."""
  files.write_text(config_check.ALL_KEYS, all_keys_text())


def all_keys_text() -> str:
  """The content of `defaults/all_keys.yaml`."""
  lines = [
    f'{key}: [{setting.kind}, {json.dumps(setting.value)}]\n'
    for key, setting in describe(_defaults()).items()
  ]
  return _HEADER + ''.join(lines)


if __name__ == '__main__':
  errors.run(write_all_keys)
