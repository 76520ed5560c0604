"""Reads and writes plain YAML: null, true, numbers, text, lists and mappings.

Whoever shares a configuration need not be trusted: nothing in the text makes an object of another
kind, and the time and memory that reading takes are bounded.
"""

import re
from typing import NoReturn

import yaml

from oanet_tf.errors import InputError

# `defaults/all_keys.yaml`, which has every key, has a third of these.
MAX_CHARACTERS = 2**17
MAX_NODES = 8_000
MAX_DEPTH = 30
# A longer scalar is text, as it takes Python long to see whether it is a number.
_MAX_SCALAR = 100

_TAG = 'tag:yaml.org,2002:'
# The Model Garden writes its tuples with a tag. A list does the same.
_TUPLE = f'{_TAG}python/tuple'
_KNOWN = ('null', 'bool', 'int', 'float', 'merge')
# In YAML 1.1, 1e-4, 1.5e4 and -.5 are text.
_FLOAT = re.compile(r'[-+]?((\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+|\.\d[\d_]*)$')
_REMEDY = 'mend it, or put text in quotes'


class _Resolver(yaml.resolver.Resolver):
  """Tells scalars without quotes apart: dates are text, and 1e-4 is a number."""

  yaml_implicit_resolvers = {  # noqa: RUF012  PyYAML's own way.
    first: [(tag, regexp) for tag, regexp in resolvers if tag.removeprefix(_TAG) in _KNOWN]
    for first, resolvers in yaml.resolver.Resolver.yaml_implicit_resolvers.items()
  }

  def resolve(self, kind: type, value: str, implicit: object) -> str:
    if kind is yaml.ScalarNode and len(value) > _MAX_SCALAR:
      return f'{_TAG}str'
    return super().resolve(kind, value, implicit)


_Resolver.add_implicit_resolver(f'{_TAG}float', _FLOAT, list('-+.0123456789'))


class _Loader(_Resolver, yaml.SafeLoader):
  """Composes nodes of plain YAML; `value` makes Python's values of them."""

  def __init__(self, text: str):
    super().__init__(text)
    self._composed = self._made = self._depth = 0

  def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node:
    event = self.peek_event()
    self._composed += 1
    self._depth += 1
    _check_size(self._composed, self._depth, event.start_mark)
    if getattr(event, 'tag', None) not in (None, _TUPLE):
      _refuse(f'{event.tag.replace(_TAG, "!!")} is no tag of plain YAML', event.start_mark)
    node = super().compose_node(parent, index)
    self._depth -= 1
    return node

  def value(self, node: yaml.Node, depth: int = 0) -> object:
    """Python's value of a node; what aliases stand for is made, and counted, each time."""
    self._made += 1
    _check_size(self._made, depth, node.start_mark)
    if isinstance(node, yaml.ScalarNode):
      return self.scalar(node)
    if isinstance(node, yaml.SequenceNode):
      return [self.value(item, depth + 1) for item in node.value]
    return self._mapping(node, depth)

  def scalar(self, node: yaml.ScalarNode) -> object:
    try:
      value = self.construct_object(node)
      if isinstance(value, str):
        # JSON writes a character beyond U+FFFF as two escapes.
        value = value.encode('utf-16', 'surrogatepass').decode('utf-16', 'surrogatepass')
    except ValueError as error:
      _refuse(str(error), node.start_mark)
    return value

  def _mapping(self, node: yaml.MappingNode, depth: int) -> dict:
    own: dict[object, object] = {}
    merged: dict[object, object] = {}
    for key_node, value_node in node.value:
      value = self.value(value_node, depth + 1)
      if key_node.tag == f'{_TAG}merge':
        for mapping in value if isinstance(value, list) else [value]:
          if not isinstance(mapping, dict):
            _refuse('only mappings can be merged', value_node.start_mark)
          merged = mapping | merged
        continue
      if not isinstance(key_node, yaml.ScalarNode):
        _refuse('a key is a list or a mapping', key_node.start_mark)
      key = self.scalar(key_node)
      if key in own:
        _refuse(f'{key} is given twice', key_node.start_mark)
      own[key] = value
    return merged | own


def _check_size(nodes: int, depth: int, mark: yaml.Mark) -> None:
  if nodes > MAX_NODES:
    _refuse(f'there are more than {MAX_NODES} values, those of aliases included', mark)
  if depth > MAX_DEPTH:
    _refuse(f'lists and mappings lie in each other more than {MAX_DEPTH} deep', mark)


def _refuse(fact: str, mark: yaml.Mark) -> NoReturn:
  raise yaml.MarkedYAMLError(problem=fact, problem_mark=mark)


def parse(text: str, where: str) -> object:
  """The value of YAML or JSON text; None for empty text.

  Args:
    text: of `MAX_CHARACTERS` at most.
    where: name of the text in errors.

  Raises:
    InputError: if it is not plain YAML, or there is too much of it; it names the line.
  """
  if len(text) > MAX_CHARACTERS:
    raise InputError(f'{where}: is longer than {MAX_CHARACTERS} characters; is it another file?')
  try:
    loader = _Loader(text)
    node = loader.get_single_node()
    return None if node is None else loader.value(node)
  except (yaml.YAMLError, ValueError) as error:  # The latter of numbers in directives.
    line, fact = _line_and_fact(error, text)
    raise InputError(f'{where}{line}: is not YAML ({fact}); {_REMEDY}') from None


def _line_and_fact(error: Exception, text: str) -> tuple[str, str]:
  if isinstance(error, yaml.reader.ReaderError):
    line = text.count('\n', 0, error.position) + 1
    return f', line {line}', f'the character U+{error.character:04X} is not allowed'
  if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark):
    return f', line {mark.line + 1}', ' '.join(error.problem.split())
  return '', ' '.join(str(error).split())


def parse_scalar(text: str, where: str) -> object:
  """Text as a number, null, true or false if it is one in YAML, or as it is.

  Raises:
    InputError: if it seems a number but is none, such as 0x_.
  """
  loader = _Loader('')
  tag = loader.resolve(yaml.ScalarNode, text, (True, False))
  try:
    return loader.construct_object(yaml.ScalarNode(tag, text))
  except ValueError as error:
    raise InputError(f'{where}: is not YAML ({error}); {_REMEDY}') from None


class _Dumper(_Resolver, yaml.SafeDumper):
  """Writes what `_Loader` reads."""

  def ignore_aliases(self, data: object) -> bool:
    return True


def write(values: dict) -> str:
  """YAML text of nested dicts and lists; `parse` gives them back, with lists for tuples."""
  return yaml.dump(values, Dumper=_Dumper)
