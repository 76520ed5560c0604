import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oanet_tf.data.categories import MAX_CATEGORY_ID, Category, PanopticCategories
from oanet_tf.errors import InputError


def entry(id=1, name='thing', isthing=1, **more):
  return {'id': id, 'name': name, 'isthing': isthing, **more}


MIXED = [entry(200, 'sky', 0), entry(9, 'boat'), entry(92, 'banner', 0), entry(3, 'car')]

ENTRIES = st.lists(
  st.tuples(st.integers(1, MAX_CATEGORY_ID), st.booleans()),
  min_size=1,
  max_size=20,
  unique_by=lambda pair: pair[0],
).map(lambda pairs: [entry(i, f'category {i}', int(thing)) for i, thing in pairs])


def test_labels_by_hand():
  categories = PanopticCategories.from_coco(MIXED)
  assert [c.name for c in categories] == ['car', 'boat', 'banner', 'sky']
  assert [categories.label(i) for i in (3, 9, 92, 200)] == [1, 2, 3, 4]
  assert (categories.num_things, categories.num_stuff, categories.num_labels) == (2, 2, 5)
  assert len(categories) == 4
  assert [categories.is_thing(label) for label in range(6)] == [False, True, True] + 3 * [False]
  assert categories.id_of_label_table().tolist() == [0, 3, 9, 92, 200]
  table = categories.label_of_id_table()
  assert table.shape == (201,)
  assert {i: int(table[i]) for i in np.flatnonzero(table)} == {3: 1, 9: 2, 92: 3, 200: 4}


@pytest.mark.parametrize('label', [-1, 0, 5])
def test_void_and_absent_labels_are_no_category(label):
  with pytest.raises(IndexError, match=str(label)):
    PanopticCategories.from_coco(MIXED).category(label)


def test_absent_ids():
  categories = PanopticCategories.from_coco(MIXED)
  assert 3 in categories and 4 not in categories and 0 not in categories
  assert categories.of_id(3) == categories.category(categories.label(3))
  for look_up in (categories.label, categories.of_id):
    with pytest.raises(KeyError):
      look_up(4)


@pytest.mark.parametrize('isthing', [0, 1])
def test_only_things_or_only_stuff(isthing):
  categories = PanopticCategories.from_coco([entry(5, isthing=isthing), entry(2, isthing=isthing)])
  assert (categories.num_things, categories.num_stuff) == (2 * isthing, 2 - 2 * isthing)
  assert [categories.is_thing(label) for label in (0, 1, 2, 3)] == [
    False,
    bool(isthing),
    bool(isthing),
    False,
  ]


@given(ENTRIES)
def test_tables_are_inverses_and_things_come_first(entries):
  categories = PanopticCategories.from_coco(entries)
  labels, ids = categories.label_of_id_table(), categories.id_of_label_table()
  np.testing.assert_array_equal(labels[ids], np.arange(categories.num_labels))
  assert sorted(ids[1:].tolist()) == sorted(e['id'] for e in entries)
  for e in entries:
    label = categories.label(e['id'])
    assert categories.category(label).id == e['id']
    assert categories.is_thing(label) == bool(e['isthing']) == (label <= categories.num_things)


@given(ENTRIES)
def test_order_of_the_file_does_not_matter(entries):
  colored = [{**e, 'color': [e['id'] % 256, 1, 2]} for e in entries]
  forward, backward = (PanopticCategories.from_coco(e) for e in (colored, colored[::-1]))
  assert forward == backward and hash(forward) == hash(backward)
  assert PanopticCategories.from_coco(forward.to_coco()) == forward


def test_json_round_trip_without_colors(tmp_path):
  categories = PanopticCategories.from_coco(MIXED)
  categories.to_json(tmp_path / 'categories.json')
  assert PanopticCategories.from_json(tmp_path / 'categories.json') == categories
  assert len({c.color for c in categories}) == 4


def test_differing_categories_are_unequal():
  categories = PanopticCategories.from_coco(MIXED)
  assert categories != PanopticCategories.from_coco(MIXED[:3])
  assert categories != PanopticCategories.from_coco([{**e, 'isthing': 1} for e in MIXED])
  assert categories != 'categories'


def test_no_category():
  with pytest.raises(InputError, match='categor'):
    PanopticCategories([])


def test_equal_ids():
  with pytest.raises(InputError, match='id 7 '):
    PanopticCategories([Category(7, 'a', True, (0, 0, 0)), Category(7, 'b', False, (0, 0, 0))])


@pytest.mark.parametrize(
  ('entries', 'fact'),
  [
    (None, 'not a list'),
    ([], 'not a list'),
    ({}, 'not a list'),
    ([3], 'not an object'),
    ([{'name': 'a', 'isthing': 1}], 'no `id`'),
    ([{'id': 1, 'isthing': 1}], 'no `name`'),
    ([{'id': 1, 'name': 'a'}], 'no `isthing`.*COCO panoptic'),
    ([entry(-3)], 'id -3 '),
    ([entry(MAX_CATEGORY_ID + 1)], 'id 65536 '),
    ([entry('1')], "id '1' "),
    ([entry(True)], 'id True '),
    ([entry(1.5)], 'id 1.5 '),
    ([entry(isthing=2)], 'isthing 2 '),
    ([entry(isthing=None)], 'isthing None '),
    ([entry(isthing=[])], 'isthing '),
    ([entry(color=[1, 2])], 'color'),
    ([entry(color=[1, 2, 256])], 'color'),
    ([entry(color=[1, 2, -1])], 'color'),
    ([entry(color=[1, 2, 0.5])], 'color'),
    ([entry(color=7)], 'color'),
    ([entry(color='reddish')], 'color'),
    ([entry(color=[1, 2, 3, 4, 5])], 'color'),
    ([entry(name='\udc80')], 'name .*UTF-8'),
    ([entry(4), entry(5), entry(4)], 'id 4 is given twice'),
  ],
)
def test_malformed_entries(entries, fact):
  with pytest.raises(InputError, match=f'(?s)^a.json: .*{fact}') as caught:
    PanopticCategories.from_coco(entries, source='a.json')
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  ('content', 'fact'),
  [
    (b'', 'JSON'),
    (b'{"categories": ', 'JSON'),
    (b'\xff\xfe\xfd', 'JSON'),
    (b'[]', 'is not an object'),
    (b'{"images": []}', 'no `categories`'),
  ],
)
def test_malformed_files(tmp_path, content, fact):
  path = tmp_path / 'categories.json'
  path.write_bytes(content)
  with pytest.raises(InputError, match=f'categories.json: .*{fact}'):
    PanopticCategories.from_json(path)


def test_missing_file(tmp_path):
  with pytest.raises(InputError, match=r'nothing\.json: '):
    PanopticCategories.from_json(tmp_path / 'nothing.json')
  with pytest.raises(InputError, match=str(tmp_path)):
    PanopticCategories.from_json(tmp_path)


def test_coco_s_own_categories(coco_sample):
  path = coco_sample / 'annotations' / 'panoptic_val2017.json'
  categories = PanopticCategories.from_json(path)
  assert (categories.num_things, categories.num_stuff) == (80, 53)
  # The last thing has id 90, the first stuff 92, the last 200.
  assert [categories.label(i) for i in (1, 90, 92, 200)] == [1, 80, 81, 133]
  original = sorted(json.loads(path.read_text())['categories'], key=lambda e: e['id'])
  kept = [{k: e[k] for k in ('id', 'name', 'isthing', 'color')} for e in original]
  assert sorted(categories.to_coco(), key=lambda e: e['id']) == kept


@pytest.mark.parametrize(
  'color', ['#0a141e', '#0a141eff', [10, 20, 30, 255], [10.0, 20, 30], 'rgb(10, 20, 30)']
)
def test_colours_as_tools_write_them(color):
  (category,) = PanopticCategories.from_coco([entry(color=color)])
  assert category.color == (10, 20, 30)


def test_the_id_0_is_a_category_and_void_another_number():
  entries = [entry(0), entry(5, isthing=0)]
  categories = PanopticCategories.from_coco(entries)
  assert categories.label(0) == 1
  assert categories.id_of_label_table().tolist() == [-1, 0, 5]
  ids = np.array([[0, 5, -1], [1, 6, 5]])
  assert categories.labels_of_ids(ids).tolist() == [[1, 2, 0], [0, 0, 2]]


def test_things_by_name():
  entries = [
    {'id': 3, 'name': 'sky', 'isthing': 0},
    {'id': 1, 'name': 'car', 'isthing': 0},
    {'id': 2, 'name': 'road'},
  ]
  categories = PanopticCategories.from_coco(entries, things=['car'])
  assert [(c.name, c.is_thing) for c in categories] == [
    ('car', True),
    ('road', False),
    ('sky', False),
  ]
  with pytest.raises(InputError, match=r"f: has no category 'cra'; .*car"):
    PanopticCategories.from_coco(entries, 'f', things=['cra'])


@pytest.mark.parametrize('color', ['#FA8000', 'fa8000', '#fa8000cc', [250, 128.0, 0, 255]])
def test_colors_as_tools_write_them(color):
  entries = [{'id': 1, 'name': 'cup', 'isthing': 1, 'color': color}]
  assert PanopticCategories.from_coco(entries).category(1).color == (250, 128, 0)


def test_a_missing_isthing_has_a_remedy():
  with pytest.raises(InputError, match=r'isthing.*--things'):
    PanopticCategories.from_coco([{'id': 1, 'name': 'cup'}])
