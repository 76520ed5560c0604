import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from official.modeling.hyperparams import params_dict

from oanet_tf.config import text as config_text
from oanet_tf.errors import InputError


def parse(text):
  return config_text.parse_override(text, 'here')


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('', {}),
    ('a=1', {'a': 1}),
    ('a.b=1,c.d=[2,3]', {'a': {'b': 1}, 'c': {'d': [2, 3]}}),
    (' a.b = 1 , a.c = x y ,', {'a': {'b': 1, 'c': 'x y'}}),
    ('a=1,a=2', {'a': 2}),
    ('a=1e-4,b=1.5e4,c=-.5,d=1E3,e=.5e-3', {'a': 1e-4, 'b': 1.5e4, 'c': -0.5, 'd': 1e3, 'e': 5e-4}),
    ('a=true,b=False,c=null,d=~,e=', {'a': True, 'b': False, 'c': None, 'd': None, 'e': ''}),
    ('a="x,y=1",b=\'1\'', {'a': 'x,y=1', 'b': '1'}),
    ('a=["x,y", z],b={c: 1e-3}', {'a': ['x,y', 'z'], 'b': {'c': 1e-3}}),
    ('a=gs://b/c-*,b=*.x', {'a': 'gs://b/c-*', 'b': '*.x'}),
    ('a=x/y-[0-9]*: #1', {'a': 'x/y-[0-9]*: #1'}),
    ('a=1x7+7x1', {'a': '1x7+7x1'}),
    ('{a: {b: 1e-4}}', {'a': {'b': 1e-4}}),
    ('{"a": {"b": [1, null]}}', {'a': {'b': [1, None]}}),
    ('a:\n  b: 1', {'a': {'b': 1}}),
  ],
)
def test_override(text, expected):
  assert parse(text) == expected


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('a', "'a'"),
    ('[1, 2]', '[1, 2]'),
    ('{a: [', 'YAML'),
    ('a=1,b', "'b'"),
    ('a=x,y,b=1', "'y,b=1'"),
    ('a=1,,b=2', 'KEY=VALUE'),
    ('a=[1,2', 'KEY=VALUE'),
    ('a="x', 'KEY=VALUE'),
    ('a=[[1]]', 'KEY=VALUE'),
    ('a="x"y', 'YAML'),
    ('a=0x_', 'YAML'),
    ('.'.join('a' * 40) + '=1', '39 groups'),
    ('a=1,a.b=2', 'a.b '),
    ('{a: 1, a: 2}', 'a is given twice'),
  ],
)
def test_a_malformed_override_is_one_line(text, message):
  with pytest.raises(InputError) as error:
    parse(text)
  assert str(error.value).startswith('here') and message in str(error.value)
  assert '\n' not in str(error.value)


def test_a_huge_override():
  text = ','.join(f'a{i}.b={i}' for i in range(10_000))
  assert parse(text) == {f'a{i}': {'b': i} for i in range(10_000)}


KEYS = st.from_regex(r'[a-z]\w{0,5}(\.[a-z]\w{0,5}){0,2}', fullmatch=True).filter(str.isascii)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | st.integers() | FLOATS | st.text('ab,= ]')


@given(KEYS, SCALARS | st.lists(st.integers() | FLOATS))
def test_whatever_is_written_as_json_comes_back(key, value):
  found = parse(f'first_of_two=0,{key}={json.dumps(value)}')  # Longer than any of `KEYS`.
  for name in key.split('.'):
    found = found[name]
  assert found == value and type(found) is type(value)


VALUES = [
  '1',
  '-2',
  '0.5',
  '1e-4',
  'true',
  'null',
  'word',
  'a/b-*.c',
  "'q,r'",
  '"1"',
  '[1,2]',
  '[]',
]


@given(
  st.dictionaries(st.sampled_from(['a', 'b', 'c.d', 'c.e.f', 'c.e.g']), st.sampled_from(VALUES))
)
def test_is_what_the_model_garden_makes_of_it(settings):
  text = ','.join(f'{key}={value}' for key, value in settings.items())
  theirs = yaml.load(params_dict.nested_csv_str_to_json_str(text), Loader=yaml.FullLoader)
  assert parse(text) == (theirs or {})


def test_files(tmp_path):
  path = tmp_path / 'a.yaml'
  for text, expected in (('', {}), ('# nothing\n', {}), ('a: 1e-4\n', {'a': 1e-4})):
    path.write_text(text)
    assert config_text.read_yaml(path) == expected
  path.write_text('x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}\n')
  assert config_text.read_yaml(path)['y'] == {'a': 1, 'b': 3}


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'- 1\n', '- 1'),
    (b'a: [1\n', 'YAML'),
    (b'\xff\xfe\x00', 'text'),
    (b'trainer: {}\ntask: {}\ntrainer: {}\n', 'line 3: .*trainer is given twice'),
    (b'# \n' * 10**6, 'longer than'),
    (None, 'No such file'),
  ],
)
def test_a_bad_file_is_named(content, message, tmp_path):
  path = tmp_path / 'a.yaml'
  if content is not None:
    path.write_bytes(content)
  with pytest.raises(InputError, match=message) as error:
    config_text.read_yaml(path)
  assert str(error.value).startswith(str(path))


def test_a_file_without_an_end_is_not_read_to_it():
  with pytest.raises(InputError, match='longer than'):
    config_text.read_yaml('/dev/zero')


def test_a_folder_is_no_file(tmp_path):
  with pytest.raises(InputError, match='Is a directory'):
    config_text.read_yaml(tmp_path)
