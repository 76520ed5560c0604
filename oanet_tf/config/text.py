"""Parses configurations: YAML, and the `a.b=1,c.d=[2,3]` of the command line.

This module does not load TensorFlow or the Model Garden, which takes seconds.
"""

import collections
import pathlib
import re

import yaml

from oanet_tf.errors import InputError
from oanet_tf.files import FilePath


class _Loader(yaml.FullLoader):
  """YAML 1.1 in which 1e-4, 1.5e4 and -.5 are numbers too and duplicate keys are errors."""

  def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
    counts = collections.Counter(key.value for key, _ in node.value if key.id == 'scalar')
    for key, count in counts.items():
      if count > 1:
        raise yaml.constructor.ConstructorError(problem=f'{key} is given {count} times')
    return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
  'tag:yaml.org,2002:float',
  re.compile(r'[-+]?((\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+|\.\d[\d_]*)$'),
  list('-+.0123456789'),
)

_KEY = re.compile(r'\s*[A-Za-z_]\w*(\.\w+)*\s*=')
# Commas within quotes and brackets belong to the value.
_KEY_AND_VALUE = re.compile(
  r"""
  \s*(?P<key>[A-Za-z_]\w*(\.\w+)*)
  \s*=\s*
  (?P<value>("[^"]*"|'[^']*'|\[[^\[\]]*\]|\{[^{}]*\}|[^,\[\]{}"'])*)
  (,|$)
  """,
  re.VERBOSE,
)


def read_yaml(path: FilePath) -> dict:
  """The mapping in a YAML file; {} for an empty file.

  Raises:
    InputError: if the file cannot be read, is not YAML or is not a mapping.
  """
  try:
    text = pathlib.Path(path).read_text(encoding='utf-8')
  except OSError as error:
    raise InputError(f'{path}: cannot be read ({error.strerror})') from None
  except UnicodeDecodeError:
    raise InputError(f'{path}: is not YAML (it is not even text)') from None
  return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> dict:
  """The mapping in YAML or JSON text.

  Args:
    text: may be empty.
    where: name of the text in errors.

  Raises:
    InputError: if it is not YAML or is not a mapping.
  """
  content = _load(text, where)
  if content is None:
    return {}
  if not isinstance(content, dict):
    raise InputError(f'{where}: {text.strip()[:60]!r} is not a mapping of keys to values')
  return content


def parse_override(text: str, where: str) -> dict:
  """`a.b=1,c.d=[2,3]`, or YAML or JSON text, as nested dicts.

  Values are YAML. A value that does not begin with a quote or bracket is a single number, word or
  path. If a key is given twice, the later value wins.

  Raises:
    InputError: if it is neither.
  """
  if not _KEY.match(text):
    return parse_yaml(text, where)
  changes, position = {}, 0
  while position < len(text):
    match = _KEY_AND_VALUE.match(text, position)
    if not match:
      rest = text[position:].strip()[:60]
      raise InputError(
        f'{where}: {rest!r} is not KEY=VALUE; quote a value that has commas or brackets in it'
      )
    *groups, name = match['key'].split('.')
    _group(changes, groups, match['key'], where)[name] = _parse_value(match['value'].strip(), where)
    position = match.end()
  return changes


def _group(changes: dict, groups: list[str], key: str, where: str) -> dict:
  for group in groups:
    changes = changes.setdefault(group, {})
    if not isinstance(changes, dict):
      raise InputError(f'{where}: {key} lies in {group}, which is given a value of its own')
  return changes


def _parse_value(text: str, where: str) -> object:
  if not text:
    return ''
  if text[0] in '[{"\'':
    return _load(text, where)
  # As YAML, a path such as *.tfrecord would be an alias, and one that contains ': ' a mapping.
  return _load(text, where, as_scalar=True)


def _load(text: str, where: str, as_scalar: bool = False) -> object:
  try:
    loader = _Loader('' if as_scalar else text)
    if not as_scalar:
      return loader.get_single_data()
    tag = loader.resolve(yaml.ScalarNode, text, (True, False))
    return loader.construct_object(yaml.ScalarNode(tag, text))
  except (yaml.YAMLError, ValueError, RecursionError) as error:
    raise InputError(f'{where}: is not YAML ({" ".join(str(error).split())})') from None
