import json
import subprocess
import sys

import numpy as np
import pytest

from oanet_tf import class_prior as command
from oanet_tf.data import class_prior
from oanet_tf.data.class_prior import PRIOR_PIXELS, ClassPrior
from oanet_tf.data.png import gray_png
from oanet_tf.errors import InputError
from tests import end_to_end
from tests.commands import run_without_tensorflow

PERSON, TIE = 7, 31  # Labels 1 and 2 of the fixture; 92 is sky.


def record(objects, segment_index, segment_categories):
  """Objects are `(category id, y1, x1, y2, x2, is crowd)`, of full rectangles."""
  boxes = np.array([o[1:5] for o in objects], np.float32).reshape(-1, 4)
  masks = [gray_png(np.ones((y2 - y1, x2 - x1), np.uint8)) for _, y1, x1, y2, x2, _ in objects]
  return {
    'source_id': b'42',
    'segment_index': np.asarray(segment_index, np.int32),
    'segment_category_ids': np.array(segment_categories, np.int32),
    'object_boxes': boxes,
    'object_category_ids': np.array([o[0] for o in objects], np.int32),
    'object_is_crowd': np.array([o[5] for o in objects], bool),
    'object_masks': masks,
  }


# A tie of 2 × 2 on a person; the truth gives 3 of the 4 pixels to the tie, 1 to the person.
INDEX = np.ones((4, 6), np.int32)
INDEX[1:3, 1:3] = 2
INDEX[1, 1] = 1
TIE_ON_PERSON = [(PERSON, 0, 0, 4, 4, False), (TIE, 1, 1, 3, 3, False)]


@pytest.mark.parametrize(
  ('objects', 'index', 'segments', 'expected'),
  [
    (TIE_ON_PERSON, INDEX, [PERSON, TIE], [[0, 1], [3, 0]]),
    # Where the truth shows neither, nobody has it.
    (TIE_ON_PERSON, INDEX, [92, TIE], [[0, 0], [3, 0]]),
    (TIE_ON_PERSON, np.zeros((4, 6)), [], [[0, 0], [0, 0]]),
    # Two persons are no pair, but each is one with the tie; a pixel counts once.
    ([*TIE_ON_PERSON, (PERSON, 2, 2, 4, 6, False)], INDEX, [PERSON, TIE], [[0, 1], [3, 0]]),
    ([(PERSON, 0, 0, 4, 4, False)] * 2, INDEX, [PERSON, TIE], [[0, 0], [0, 0]]),
    ([(PERSON, 0, 0, 4, 4, True), TIE_ON_PERSON[1]], INDEX, [PERSON, TIE], [[0, 0], [0, 0]]),
    ([], INDEX, [PERSON, TIE], [[0, 0], [0, 0]]),
  ],
)
def test_conflicts(categories, objects, index, segments, expected):
  found = class_prior.conflicts(record(objects, index, segments), categories)
  np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize('category_id', [92, 5, 60000])
def test_an_object_that_is_no_thing_is_refused(categories, category_id):
  wrong = record([(category_id, 0, 0, 2, 2, False)], INDEX, [PERSON, TIE])
  with pytest.raises(InputError, match=rf'image 42 .*category {category_id}\b'):
    class_prior.conflicts(wrong, categories)


def test_the_table_starts_from_one_half(categories):
  pixels = np.array([[0, PRIOR_PIXELS], [7 * PRIOR_PIXELS, 0]])
  table = ClassPrior(categories, pixels).table()
  np.testing.assert_allclose(table, [[0.5, 0.2], [0.8, 0.5]])
  np.testing.assert_array_equal(ClassPrior(categories, 0 * pixels).table(), np.full((2, 2), 0.5))


def test_the_file_can_be_read_by_people_and_by_us(categories, tmp_path):
  prior = ClassPrior(categories, np.array([[0, 1], [3, 0]]))
  path = tmp_path / 'folder' / 'prior.json'
  prior.to_json(path)
  content = json.loads(path.read_text())
  pair = {'ids': [PERSON, TIE], 'names': ['person', 'tie'], 'pixels': [1, 3]}
  names = ['person', 'tie']
  assert content == {'thing_ids': [PERSON, TIE], 'thing_names': names, 'pairs': [pair]}
  assert [file.name for file in path.parent.iterdir()] == ['prior.json']
  np.testing.assert_array_equal(ClassPrior.from_json(path, categories).pixels, prior.pixels)


GOOD_PAIR = {'ids': [7, 31], 'pixels': [1, 2]}


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ({}, 'thing_ids'),
    ({'pairs': []}, 'thing_ids'),
    ({'thing_ids': [7], 'pairs': []}, '1 things, not 2'),
    ({'thing_ids': [7, 32], 'pairs': []}, "32 '', not 31 'tie'"),
    (
      {'thing_ids': [7, 31], 'thing_names': ['person', 'bow'], 'pairs': []},
      "31 'bow', not 31 'tie'",
    ),
    (
      # Of an earlier version, where only pairs have names.
      {'thing_ids': [7, 31], 'pairs': [{**GOOD_PAIR, 'names': ['person', 'bow']}]},
      "31 'bow', not 31 'tie'",
    ),
    ({'thing_ids': [7, [31]], 'pairs': [{**GOOD_PAIR, 'names': ['person', 'tie']}]}, 'not 31'),
    ({'thing_ids': [7, 31]}, 'class_prior'),
    ({'thing_ids': [7, 31], 'pairs': 5}, 'class_prior'),
    ({'thing_ids': [7, 31], 'pairs': [{**GOOD_PAIR, 'ids': [7, 92]}]}, 'class_prior'),
    ({'thing_ids': [7, 31], 'pairs': [{**GOOD_PAIR, 'ids': [7]}]}, 'class_prior'),
    ({'thing_ids': [7, 31], 'pairs': [{**GOOD_PAIR, 'pixels': ['a', 2]}]}, 'class_prior'),
    ({'thing_ids': [7, 31], 'pairs': [{**GOOD_PAIR, 'pixels': [-1, 2]}]}, 'below 0'),
    (
      {'thing_ids': [7, 31], 'pairs': [{**GOOD_PAIR, 'pixels': [2**70, 2]}]},
      'oanet class_prior',
    ),
    ([], 'object'),
  ],
)
def test_a_malformed_file_is_named(categories, tmp_path, content, message):
  path = tmp_path / 'prior.json'
  path.write_text(json.dumps(content))
  with pytest.raises(InputError, match=message) as error:
    ClassPrior.from_json(path, categories)
  assert str(error.value).startswith(f'{path}: ') and '\n' not in str(error.value)


def run(monkeypatch, capsys, *arguments):
  return end_to_end.run_command(monkeypatch, capsys, command.main, *arguments)


def test_command_counts_shards(tmp_path, monkeypatch, capsys):
  end_to_end.make_shards(tmp_path, num_train=12)
  output = tmp_path / 'prior.json'
  code, stdout, _ = run(
    monkeypatch, capsys, '--input_path', f'{tmp_path}/shards/train-*', '--output', output
  )
  content = json.loads(output.read_text())
  pairs = {tuple(pair['names']): pair['pixels'] for pair in content['pairs']}
  assert code == 0 and f'{len(pairs)} pairs' in stdout
  # What OccludedScenes is made for: ties lie on persons, cups on tables.
  (of_person, of_tie), (of_cup, of_table) = pairs['person', 'tie'], pairs['cup', 'table']
  assert of_tie > 10 * of_person and of_cup > 10 * of_table
  shard = next((tmp_path / 'shards').glob('train-*'))
  before, categories = shard.read_bytes(), tmp_path / 'shards' / 'categories.json'
  for wrong, more in ((output, []), (shard, ['--overwrite']), (categories, ['--overwrite'])):
    outcome = run(
      monkeypatch, capsys, '--input_path', shard, '--categories', categories, '--output', wrong,
      *more,
    )  # fmt: skip
    assert f'{wrong}: ' in end_to_end.one_line_error(outcome)
  assert json.loads(output.read_text()) == content and shard.read_bytes() == before


def test_a_damaged_shard_is_named(tmp_path, monkeypatch, capsys):
  end_to_end.make_shards(tmp_path)
  (shard,) = (tmp_path / 'shards').glob('train-*')
  data = bytearray(shard.read_bytes())
  data[len(data) // 2] ^= 255
  shard.write_bytes(data)
  outcome = run(monkeypatch, capsys, '--input_path', shard, '--output', tmp_path / 'prior.json')
  assert f'{shard}: ' in end_to_end.one_line_error(outcome)
  assert not (tmp_path / 'prior.json').exists()


def test_files_are_looked_at_before_tensorflow_loads(tmp_path):
  shard = tmp_path / 'shard'
  shard.write_text('no shard')
  done = subprocess.run(
    [
      sys.executable, '-c',
      'import sys; from oanet_tf.data import class_prior\n'
      f'try: class_prior.count([{str(shard)!r}], None)\n'
      "except ValueError: print('tensorflow' in sys.modules)",
    ],
    capture_output=True, text=True, check=True,
  )  # fmt: skip
  assert done.stdout == 'False\n'


def test_no_shard_is_an_error_and_help_answers_without_tensorflow():
  module = 'oanet_tf.class_prior'
  done = run_without_tensorflow(module, '--input_path', 'none-*', '--output', 'a.json')
  assert done.returncode == 2 and 'none-*: ' in done.stderr
  done = run_without_tensorflow(module, '--help')
  assert done.returncode == 0 and 'task.model.fusion.class_prior' in done.stdout
