"""Reads and checks a configuration in a fraction of a second.

This module does not load TensorFlow or the Model Garden, which takes seconds. A configuration here
is a flat dict of dotted keys, such as `task.model.sharing`. `defaults/all_keys.yaml` has each key's
kind and default, taken from the dataclasses of `definitions.py`. The registered experiments are
beside it.
"""

import copy
import difflib
import functools
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from oanet_tf.config import values as config_values
from oanet_tf.config.text import parse_override, read_yaml
from oanet_tf.config.values import PARAMS_FILE
from oanet_tf.errors import InputError
from oanet_tf.files import FilePath

DEFAULTS = pathlib.Path(__file__).with_name('defaults')
ALL_KEYS = DEFAULTS / 'all_keys.yaml'

# `params.yaml` sets every key, so it does not matter which experiment it overrides.
BASE_EXPERIMENT = 'oanet_r50fpn_coco'
OVERRIDE = '--params_override'

_TYPES = {
  'bool': bool,
  'float': (int, float),
  'group': dict,
  'int': int,
  'null': type(None),
  'str': str,
}


class Setting(NamedTuple):
  """One key of a configuration.

  Attributes:
    kind: of its value: 'bool', 'int', 'float', 'str', 'list of …', or several joined by 'or'.
      'group or null' is a group of keys that can be missing as a whole.
    value: the default, or what it was set to; {} for a group that is not missing.
  """

  kind: str
  value: object


Settings = dict[str, Setting]


def resolve_experiment(
  experiment: str, config_files: Sequence[str] = (), params_override: str = ''
) -> Settings:
  """`resolve` for a registered experiment.

  Raises:
    InputError: as `resolve`, and for an unknown experiment.
  """
  return resolve(experiment_settings(experiment), config_files, params_override)


def resolve(
  settings: Settings, config_files: Sequence[str] = (), params_override: str = ''
) -> Settings:
  """Applies YAML files in turn, then an override; checks keys and values.

  Args:
    settings: all settings by key.
    config_files: paths.
    params_override: `a.b=1,c.d=[2,3]`, or YAML or JSON text.

  Raises:
    InputError: for an unreadable file, an unknown key (the error names the nearest known one), or a
      value of the wrong kind, without effect, or that would not work.
  """
  for path in config_files:
    settings = _apply(settings, read_yaml(path), str(path))
  if params_override:
    settings = _apply(settings, parse_override(params_override, OVERRIDE), OVERRIDE)
  config_values.check(
    active_values(settings), {key: setting.value for key, setting in _all_keys().items()}
  )
  return settings


def experiment_names() -> list[str]:
  """The experiments in `defaults/`."""
  return sorted(path.stem for path in DEFAULTS.glob('*.yaml') if path != ALL_KEYS)


def experiment_settings(experiment: str) -> Settings:
  """All settings of an experiment in `defaults/`: its own, over its base's, over the defaults.

  Raises:
    InputError: if there is none of that name.
  """
  if experiment not in experiment_names():
    known = ', '.join(experiment_names())
    raise InputError(f'there is no experiment {experiment!r}; known are {known}')
  path = DEFAULTS / f'{experiment}.yaml'
  content = read_yaml(path)
  base = content.pop('base', None)
  return _apply(experiment_settings(base) if base else _all_keys(), content, str(path))


def active(settings: Settings) -> Settings:
  """The settings without groups that are missing or not chosen, such as Adam's with SGD."""
  return {
    key: setting
    for key, setting in settings.items()
    if not _other_choice(settings, key)
    and all(settings[group].value is not None for group in _groups_of(key) if group in settings)
  }


def active_values(settings: Settings) -> dict[str, Any]:
  """The values of the active settings."""
  return {key: setting.value for key, setting in active(settings).items()}


def to_nested(settings: Settings) -> dict:
  """The values of the active settings, as nested dicts."""
  return nested(active_values(settings))


def nested(values: Mapping[str, object]) -> dict:
  """Values by dotted keys, as nested dicts."""
  tree = {}
  for key, value in values.items():
    *groups, name = key.split('.')
    parent = functools.reduce(lambda node, group: node.setdefault(group, {}), groups, tree)
    parent[name] = copy.copy(value)
  return tree


def params_path(model_dir: FilePath) -> str:
  """The path of the configuration in a model folder.

  Raises:
    InputError: if the folder has none.
  """
  path = pathlib.Path(model_dir) / PARAMS_FILE
  if not path.is_file():
    raise InputError(f'{model_dir}: is no model folder (it has no {PARAMS_FILE})')
  return str(path)


@functools.cache
def _all_keys() -> Settings:
  return {key: Setting(*pair) for key, pair in read_yaml(ALL_KEYS).items()}


def _apply(settings: Settings, content: dict, where: str) -> Settings:
  changed, pairs = dict(settings), list(flatten(content))
  for key, value in pairs:
    _check_kind(settings, key, value, where)
    for group in _groups_of(key):
      if group in settings:
        changed[group] = settings[group]._replace(value={})
    if key in settings:
      changed[key] = settings[key]._replace(value=_of_kind(value, settings[key].kind))
  for key, _ in pairs:
    if other := _other_choice(changed, key):
      raise InputError(f'{where}: {key} has no effect, as {other} is {changed[other].value!r}')
  return changed


def flatten(content: dict, prefix: str = '') -> Iterator[tuple[str, object]]:
  """Nested dicts -> values by dotted keys; an empty dict is a value."""
  for name, value in content.items():
    if isinstance(value, dict) and value:
      yield from flatten(value, f'{prefix}{name}.')
    else:
      yield f'{prefix}{name}', value


def _groups_of(key: str) -> list[str]:
  parts = key.split('.')
  return ['.'.join(parts[:length]) for length in range(1, len(parts))]


def _other_choice(settings: Settings, key: str) -> str | None:
  """The `….type` key that chooses a group other than this key's, if any."""
  for group in _groups_of(key):
    parent, _, choice = group.rpartition('.')
    chosen = settings.get(f'{parent}.type')
    if chosen and chosen.value != choice:
      return f'{parent}.type'
  return None


def _check_kind(settings: Settings, key: str, value: object, where: str) -> None:
  if key in settings:
    if not fits(value, settings[key].kind):
      raise InputError(f'{where}: {key} is {value!r}, but takes a {settings[key].kind}')
  elif not any(known.startswith(f'{key}.') for known in settings):
    raise InputError(f'{where}: there is no key {_unknown(settings, key)}')
  elif value != {}:
    raise InputError(f'{where}: {key} is a group of keys, not {value!r}')


def fits(value: object, kind: str) -> bool:
  """Whether a value is of a kind. An int is also a float; a bool is not a number."""
  if ' or ' in kind:
    return any(fits(value, alternative) for alternative in kind.split(' or '))
  if kind.startswith('list of '):
    of_item = kind.removeprefix('list of ')
    return isinstance(value, list | tuple) and all(fits(item, of_item) for item in value)
  return isinstance(value, _TYPES[kind]) and (kind == 'bool' or not isinstance(value, bool))


def _of_kind(value: object, kind: str) -> object:
  """A value that fits a kind, with whole numbers as the floats that TensorFlow wants."""
  kinds = kind.split(' or ')
  if isinstance(value, list | tuple):
    items = ' or '.join(one.removeprefix('list of ') for one in kinds)
    return type(value)(_of_kind(item, items) for item in value)
  if not isinstance(value, int) or isinstance(value, bool) or 'int' in kinds:
    return value
  # A larger one is refused later, with what it may be.
  return float(value) if abs(value) <= 2**1000 else value


def _unknown(settings: Settings, key: str) -> str:
  """For an error: the unknown part of a key and the nearest known key."""
  names = {*settings, *(group for known in settings for group in _groups_of(known))}
  unknown = next((group for group in _groups_of(key) if group not in names), key)
  parent, _, name = unknown.rpartition('.')
  same_name = [known for known in names if known.endswith(f'.{name}')]
  siblings = [known for known in names if known.rpartition('.')[0] == parent]
  candidates = sorted(same_name or siblings or settings)
  (nearest,) = difflib.get_close_matches(unknown, candidates, n=1, cutoff=0)
  return f'{unknown}; did you mean {nearest}?'
