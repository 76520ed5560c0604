"""Parses configurations: YAML, and the `a.b=1,c.d=[2,3]` of the command line.

This module does not load TensorFlow or the Model Garden, which takes seconds.
"""

import pathlib
import re

from oanet_tf.config import plain_yaml
from oanet_tf.errors import InputError
from oanet_tf.files import FilePath

_KEY = re.compile(r'\s*[A-Za-z_]\w*(\.\w+)*\s*=')
# Commas within quotes and brackets belong to the value.
_KEY_AND_VALUE = re.compile(
  r"""
  \s*(?P<key>[A-Za-z_]\w*(\.\w+)*)
  \s*=\s*(?!\s)
  (?P<value>("[^"]*"|'[^']*'|\[[^\[\]]*\]|\{[^{}]*\}|[^,\[\]{}"'])*)
  (,|$)
  """,
  re.VERBOSE,
)


def read_yaml(path: FilePath) -> dict:
  """The mapping in a YAML file; {} for an empty file.

  Raises:
    InputError: if the file cannot be read, is not plain YAML, too long or not a mapping.
  """
  try:
    with pathlib.Path(path).open(encoding='utf-8') as file:
      text = file.read(plain_yaml.MAX_CHARACTERS + 1)
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
  content = plain_yaml.parse(text, where)
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
    if len(groups) > plain_yaml.MAX_DEPTH:
      raise InputError(f'{where}: there is no key {name} in {len(groups)} groups')
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
    return plain_yaml.parse(text, where)
  # As YAML, a path such as *.tfrecord would be an alias, and one that contains ': ' a mapping.
  return plain_yaml.parse_scalar(text, where)
