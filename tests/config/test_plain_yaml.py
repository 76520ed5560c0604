"""YAML of people who need not be trusted."""

import json
import math
import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oanet_tf.config import check as config_check
from oanet_tf.config import experiments, plain_yaml
from oanet_tf.errors import InputError


def parse(text):
  return plain_yaml.parse(text, 'here')


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('', None),
    ('a: [1, 0x1F, 017, 0b11, 1_000, -2]', {'a': [1, 31, 15, 3, 1000, -2]}),
    ('a: [1.5, 1e-4, 1.5e4, -.5, 1:30]', {'a': [1.5, 1e-4, 1.5e4, -0.5, 90]}),
    ('a: [.inf, -.inf]', {'a': [math.inf, -math.inf]}),
    ('a: [yes, Off, true, ~, null]', {'a': [True, False, True, None, None]}),
    ('a: [2020-01-02, 2020-13-45, =]', {'a': ['2020-01-02', '2020-13-45', '=']}),
    ('a: "\\ud83d\\ude00 \U0001f600"', {'a': '\U0001f600 \U0001f600'}),
    ('a: &x {b: 1, c: 2}\nd: {<<: *x, b: 3}', {'a': {'b': 1, 'c': 2}, 'd': {'b': 3, 'c': 2}}),
    ('a: {<<: [{b: 1}, {b: 2, c: 2}]}', {'a': {'b': 1, 'c': 2}}),
    # As Python gives bytes of a path that are no UTF-8.
    ('a: "\\udce9"', {'a': '\udce9'}),
    # As the Model Garden writes tuples.
    ('a: !!python/tuple [1, 2]', {'a': [1, 2]}),
    ('a: &x [1]\nb: *x', {'a': [1], 'b': [1]}),
    ('a: ' + '1' * 101, {'a': '1' * 101}),
  ],
)
def test_what_plain_yaml_says(text, expected):
  assert parse(text) == expected


def test_what_two_aliases_stand_for_is_not_shared():
  found = parse('a: &x [1]\nb: *x')
  found['a'].append(2)
  assert found['b'] == [1]


def nested_aliases(first, more):
  lines = [f'a0: &a0 {first}'] + [f'a{i + 1}: &a{i + 1} {more(f"*a{i}")}' for i in range(20)]
  return '\n'.join(lines)


MALFORMED = {
  'a list that has itself': ('a: &x [*x]', 1, 'deep'),
  'a mapping that has itself': ('a: 1\nb: &x {c: *x}', 2, 'deep'),
  'a key that is its mapping': ('&x {*x: 1}', 1, 'a key is a list or a mapping'),
  'a key that is a list': ('? [1]\n: 2', 1, 'a key is a list or a mapping'),
  'an alias bomb': (nested_aliases('[x, x]', lambda a: f'[{", ".join([a] * 9)}]'), 1, 'values'),
  'a bomb of merges': (
    nested_aliases('{x: 1}', lambda a: f'{{<<: [{", ".join([a] * 9)}]}}'), 1, 'values',
  ),
  'much nesting': ('[' * 100_000, 1, 'deep'),
  'nested keys': ('? ' * 50_000, 1, 'deep'),
  'many values': ('- \n' * 40_000, plain_yaml.MAX_NODES, 'values'),
  'no alias': ('a: 1\nb: *x', 2, 'undefined alias'),
  'merging of a number': ('<<: 3', 1, 'only mappings can be merged'),
  'a value that is the merge key': ('a: <<', 1, 'merge'),
  'keys twice': ('a: 1\nb: 2\na: 3', 3, 'a is given twice'),
  'a character of control': ('a: 1\n\x00: 1', 2, 'U+0000'),
  'half a number': ('a: 0x_', 1, 'int'),
  'two documents': ('a: 1\n---\nb: 2', 2, 'another document'),
  'a tab': ('a:\n\tb: 1', 2, 'cannot start any token'),
  'another version': ('%YAML 2.0\n---\na: 1', 1, 'incompatible'),
  **{
    f'a tag {tag}': (f'b: 1\na: {tag} x', 2, tag if tag.startswith('!!') else 'tag')
    for tag in (
      '!!bool', '!!timestamp', '!!set', '!!binary', '!!omap', '!!str', '!!python/name:os.system',
      '!!python/object/apply:os.system', '!!python/module:os', '!', '!own', '!<x>',
    )
  },
}  # fmt: skip


@pytest.mark.parametrize(('text', 'line', 'fact'), MALFORMED.values(), ids=MALFORMED)
def test_what_is_refused_is_named_by_its_line(text, line, fact):
  with pytest.raises(InputError) as error:
    parse(text)
  message = str(error.value)
  assert message.startswith(f'here, line {line}: is not YAML (') and fact in message
  assert '\n' not in message and len(message) < 200


@pytest.mark.parametrize('text', ['#' * 200_000, '%YAML ' + '1' * 5000 + '.1\n---\na: 1'])
def test_what_has_no_line_is_refused_too(text):
  with pytest.raises(InputError, match='here: '):
    parse(text)


PIECES = ['a', ':', ' ', '\n', '- ', '[', ']', '{', '}', ',', '&x ', '*x', '!!set ', '? ', '"', "'"]
PIECES += [
  '|\n',
  '<<: ',
  '1',
  '.5',
  'e',
  '\\',
  '#',
  '%',
  '---\n',
  '\x00',
  '\x85',
  '\u202e',
  '\ud800',
]


@given(st.lists(st.sampled_from(PIECES), max_size=40), st.integers(1, 3000))
def test_malformed_text_ends_in_one_line_and_little_memory(pieces, times):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  try:
    parse(''.join(pieces) * times)
  except InputError as error:
    assert len(str(error).splitlines()) == 1
  assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB.


def as_json(value):
  """Tells 1, 1.0 and true apart."""
  return json.dumps(value, sort_keys=True)


FLOATS = st.floats(allow_nan=False)
SCALARS = (
  st.none() | st.booleans() | st.integers() | FLOATS | st.text() | st.text('.0123456789eE-+:x_')
)
SCALARS |= st.sampled_from(
  ['1e-4', '-.5', 'yes', '2020-01-02', '<<', '=', '~', '!', '&x', '*x', '']
)


@given(
  st.recursive(
    SCALARS,
    lambda some: (
      st.lists(some, max_size=4) | st.dictionaries(st.text(max_size=9), some, max_size=4)
    ),
    max_leaves=20,
  )
)
def test_what_is_written_is_what_is_read(value):
  text = plain_yaml.write({'a': value, 'b': [value, value]})
  found = parse(text)
  assert found == {'a': value, 'b': [value, value]} and as_json(found) == as_json(
    {'a': value, 'b': [value] * 2}
  )


@pytest.mark.parametrize('name', config_check.experiment_names())
def test_every_experiment_is_written_as_it_is(name, tmp_path):
  content = experiments.load_experiment(name).as_dict()
  text = plain_yaml.write(content)
  assert parse(text) == content
  assert '!!' not in text and '&id' not in text and '*id' not in text


def test_tuples_and_shared_values_are_written_plainly():
  shared = [1, 2]
  text = plain_yaml.write({'a': (1, 2), 'b': shared, 'c': shared})
  assert parse(text) == {'a': [1, 2], 'b': [1, 2], 'c': [1, 2]}
  assert '!' not in text and '&' not in text
