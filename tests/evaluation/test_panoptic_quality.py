"""Panoptic quality against hand-worked numbers and against other packages."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as np_st
from PIL import Image

from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.panoptic_map import MAX_SEGMENT_ID, ids_to_rgb
from oanet_tf.errors import InputError
from oanet_tf.evaluation.coco_results import read_results
from oanet_tf.evaluation.panoptic_quality import PanopticQuality, format_table
from tests.categories import CATEGORIES, DOG, GRASS, PERSON, SKY
from tests.references import approx
from tests.segments import id_map, segments_of_ids


def score(*images):
  quality = PanopticQuality(CATEGORIES)
  for truth, prediction in images:
    quality.update(truth, prediction)
  return quality


def counts(quality, category_id):
  return tuple(quality.statistics[CATEGORIES.label(category_id)])


def test_two_matches_by_hand():
  truth = segments_of_ids([5] * 6 + [9] * 4, {5: PERSON, 9: GRASS})
  prediction = segments_of_ids([1] * 5 + [2] * 5, {1: PERSON, 2: GRASS})
  result = score((truth, prediction)).result()
  assert result['Things'] == pytest.approx({'pq': 5 / 6, 'sq': 5 / 6, 'rq': 1, 'n': 1})
  assert result['Stuff'] == pytest.approx({'pq': 4 / 5, 'sq': 4 / 5, 'rq': 1, 'n': 1})
  assert result['All'] == pytest.approx({'pq': 49 / 60, 'sq': 49 / 60, 'rq': 1, 'n': 2})
  assert result['per_class'][GRASS] == pytest.approx({'pq': 4 / 5, 'sq': 4 / 5, 'rq': 1})
  assert result['per_class'][SKY] == {'pq': 0, 'sq': 0, 'rq': 0}


def test_pixels_that_are_counted_are_as_many_pixels():
  truth = segments_of_ids([5] * 6 + [9] * 4, {5: PERSON, 9: GRASS})
  prediction = segments_of_ids([1] * 5 + [2] * 5, {1: PERSON, 2: GRASS})
  quality = PanopticQuality(CATEGORIES)
  # Pairs may come in any order, and twice.
  quality.update_pairs(
    truth._replace(index=np.array([2, 1, 1, 2])),
    prediction._replace(index=np.array([2, 1, 2, 2])),
    np.array([3, 5, 1, 1]),
  )
  np.testing.assert_array_equal(quality.statistics, score((truth, prediction)).statistics)


def test_a_match_a_miss_and_a_false_alarm_by_hand():
  truth = segments_of_ids([1, 1, 1, 1, 2, 2], {1: PERSON, 2: PERSON})
  prediction = segments_of_ids([1, 1, 1, 3, 3, 3], {1: PERSON, 3: DOG})
  quality = score((truth, prediction))
  assert counts(quality, PERSON) == (0.75, 1, 0, 1)
  assert counts(quality, DOG) == (0, 0, 1, 0)
  result = quality.result()
  assert result['per_class'][PERSON] == pytest.approx({'pq': 0.5, 'sq': 0.75, 'rq': 2 / 3})
  assert result['All'] == pytest.approx({'pq': 0.25, 'sq': 0.375, 'rq': 1 / 3, 'n': 2})


def test_an_iou_of_one_half_is_no_match():
  truth = segments_of_ids([1, 2], {1: PERSON, 2: DOG})
  quality = score((truth, segments_of_ids([1, 1], {1: PERSON})))
  assert counts(quality, PERSON) == (0, 0, 1, 1)
  assert counts(quality, DOG) == (0, 0, 0, 1)


def test_void_in_truth_is_taken_from_the_union():
  truth = segments_of_ids([0, 0, 1], {1: SKY})
  assert counts(score((truth, segments_of_ids([4, 4, 4], {4: SKY}))), SKY) == (1, 1, 0, 0)


@pytest.mark.parametrize(('on_void', 'false_positives'), [(1, 1), (2, 1), (3, 0)])
def test_a_prediction_over_half_on_void_is_ignored(on_void, false_positives):
  truth = segments_of_ids([0] * on_void + [1] * (4 - on_void), {1: SKY})
  quality = score((truth, segments_of_ids([2, 2, 2, 2], {2: DOG})))
  assert counts(quality, DOG) == (0, 0, false_positives, 0)


def test_a_crowd_is_neither_matched_nor_missed_but_excuses_its_category():
  truth = segments_of_ids([1, 1, 1, 1], {1: (PERSON, True)})
  person = segments_of_ids([2, 2, 2, 2], {2: PERSON})
  dog = segments_of_ids([2, 2, 2, 2], {2: DOG})
  assert counts(score((truth, person)), PERSON) == (0, 0, 0, 0)
  assert counts(score((truth, dog)), DOG) == (0, 0, 1, 0)
  assert counts(score((truth, dog)), PERSON) == (0, 0, 0, 0)


def test_only_the_last_crowd_of_a_category_excuses():
  prediction = segments_of_ids([3, 3, 3, 0], {3: PERSON})
  small_last = segments_of_ids([1, 1, 1, 2], {1: (PERSON, True), 2: (PERSON, True)})
  large_last = segments_of_ids([1, 1, 1, 2], {2: (PERSON, True), 1: (PERSON, True)})
  assert counts(score((small_last, prediction)), PERSON) == (0, 0, 1, 0)
  assert counts(score((large_last, prediction)), PERSON) == (0, 0, 0, 0)


def test_nothing_counted_is_zero_and_not_a_division_by_zero():
  nothing = {'pq': 0.0, 'sq': 0.0, 'rq': 0.0, 'n': 0}
  void = segments_of_ids(np.zeros((1, 1)), {})
  for result in (score().result(), score((void, void)).result()):
    assert [result[group] for group in ('All', 'Things', 'Stuff')] == [nothing] * 3


def test_empty_prediction_misses_all_and_void_truth_excuses_all():
  whole = segments_of_ids(np.full((3, 2), MAX_SEGMENT_ID), {MAX_SEGMENT_ID: DOG})
  void = segments_of_ids(np.zeros((3, 2)), {})
  assert counts(score((whole, void)), DOG) == (0, 0, 0, 1)
  assert counts(score((void, whole)), DOG) == (0, 0, 0, 0)


def test_results_are_plain_numbers():
  truth = segments_of_ids([1, 0], {1: DOG})
  text = json.dumps(score((truth, truth)).result())
  assert json.loads(text)['Things'] == {'pq': 1.0, 'sq': 1.0, 'rq': 1.0, 'n': 1}


def test_thousands_of_segments():
  """Each prediction lacks one of 30 pixels."""
  truth_map = np.arange(3000).repeat(30).reshape(300, 300) + 1
  prediction_map = truth_map * (np.arange(300) % 30 > 0)
  segments = dict.fromkeys(range(1, 3001), PERSON)
  quality = score((segments_of_ids(truth_map, segments), segments_of_ids(prediction_map, segments)))
  assert counts(quality, PERSON) == (pytest.approx(3000 * 29 / 30), 3000, 0, 0)


def test_statistics_of_parts_add_up():
  images = [
    (segments_of_ids([1, 1, 2], {1: PERSON, 2: SKY}), segments_of_ids([1, 1, 1], {1: PERSON})),
    (segments_of_ids([1, 1, 1], {1: SKY}), segments_of_ids([5, 5, 4], {5: SKY, 4: DOG})),
  ]
  parts = score(images[0])
  parts.statistics += score(images[1]).statistics
  assert parts.result() == score(*images).result()
  assert parts.statistics.shape == (5, 4) and not parts.statistics[0].any()


def test_a_map_without_pixels():
  empty = segments_of_ids(np.zeros([0, 3]), {})
  listed = segments_of_ids(np.zeros([0, 3]), {1: SKY})
  assert not score((empty, empty)).statistics.any()
  assert counts(score((listed, empty)), SKY) == (0, 0, 0, 1)


def test_runs_are_of_pairs_and_go_on_from_row_to_row():
  """Neither map alone tells where the pair changes; the third row starts as the second ends."""
  truth = segments_of_ids([[1, 1, 1], [2, 2, 1], [1, 2, 2]], {1: PERSON, 2: DOG})
  prediction = segments_of_ids([[1, 1, 2], [2, 2, 1], [1, 2, 2]], {1: PERSON, 2: DOG})
  quality = score((truth, prediction))
  assert counts(quality, PERSON) == (4 / 5, 1, 0, 0)
  assert counts(quality, DOG) == (4 / 5, 1, 0, 0)


GOOD = segments_of_ids([[1, 1], [0, 2]], {1: PERSON, 2: SKY})


@pytest.mark.parametrize(
  ('bad', 'message'),
  [
    (segments_of_ids([[1, 1]], {1: PERSON}), '2 × 1'),
    (segments_of_ids([[1, 1], [0, 2]], {1: PERSON, 2: 91}), 'segment 2 .*category id 91'),
    (segments_of_ids([[1, 1], [0, 2]], {1: PERSON, 2: -3}), 'category id -3'),
  ],
)
def test_malformed_segments_are_named(bad, message):
  quality = PanopticQuality(CATEGORIES)
  with pytest.raises(InputError, match=message) as caught:
    quality.update(GOOD, bad)
  assert 'prediction' in str(caught.value)
  with pytest.raises(InputError, match='ground truth'):
    quality.update(bad, GOOD)
  assert quality.result()['All']['n'] == 0


def test_errors_name_what_the_caller_names():
  quality = PanopticQuality(CATEGORIES)
  wide = segments_of_ids([[1, 1]], {1: PERSON})
  with pytest.raises(InputError, match=r'^a\.png: .*2 × 1 .*b\.png .*2 × 2'):
    quality.update(GOOD, wide, 'b.png', 'a.png')
  with pytest.raises(InputError, match=r'^b\.png: segment 2 .*category id 91'):
    quality.update(GOOD._replace(category_ids=np.array([PERSON, 91])), GOOD, 'b.png', 'a.png')


def test_a_listed_segment_without_pixels_is_missed_in_truth_but_wrong_in_a_prediction():
  listed = segments_of_ids([[1, 1], [0, 2]], {1: PERSON, 2: SKY, 8: DOG})
  assert counts(score((listed, GOOD)), DOG) == (0, 0, 0, 1)
  with pytest.raises(InputError, match='segment 8 '):
    score((GOOD, listed))


def write(path, images, categories):
  """Writes a JSON file, with true areas, and its PNGs."""
  folder = path.with_suffix('')
  folder.mkdir()
  content = {'images': [], 'annotations': [], 'categories': categories.to_coco()}
  for image_id, image in enumerate(images):
    ids, name = id_map(image), f'{image_id}.png'
    Image.fromarray(ids_to_rgb(ids)).save(folder / name)
    height, width = ids.shape
    content['images'].append({'id': image_id, 'file_name': name, 'height': height, 'width': width})
    infos = [
      {'id': int(i), 'category_id': int(c), 'iscrowd': int(crowd), 'area': int((ids == i).sum())}
      for i, c, crowd in zip(*image[1:4], strict=True)
    ]
    content['annotations'].append({'image_id': image_id, 'file_name': name, 'segments_info': infos})
  path.write_text(json.dumps(content))


def assert_equals(other_scores, quality, categories, images, folder):
  """The same scores, and all that they are made of; `images` are pairs."""
  paths = [folder / 'truth.json', folder / 'prediction.json']
  for path, segmentations in zip(paths, zip(*images, strict=True), strict=True):
    write(path, segmentations, categories)
  expected = other_scores(*paths)
  for label, category in enumerate(categories, start=1):
    assert quality.statistics[label] == pytest.approx(expected.statistics[category.id], abs=1e-12)
  assert quality.result() == approx(expected.result)


CATEGORY_IDS = st.sampled_from([c.id for c in CATEGORIES])
CELLS = st.integers(0, 4)


@st.composite
def image_pairs(draw):
  """Truth with crowds, void and segments without pixels; a prediction that mostly follows it."""
  shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 8)))
  truth_cells = draw(np_st.arrays(np.int32, shape, elements=CELLS, fill=CELLS))
  changes = draw(np_st.arrays(np.int32, shape, elements=CELLS, fill=st.just(0)))
  prediction_cells = np.where(changes > 0, changes - 1, truth_cells)
  kinds = draw(st.lists(CATEGORY_IDS, min_size=4, max_size=4))
  crowds = draw(st.lists(st.booleans(), min_size=4, max_size=4))
  changed_kinds = draw(st.lists(st.none() | CATEGORY_IDS, min_size=4, max_size=4))
  order = draw(st.permutations(range(1, 5)))
  unique_ids = st.lists(st.integers(1, MAX_SEGMENT_ID), min_size=4, max_size=4, unique=True)

  truth_ids, prediction_ids = np.array([0, *draw(unique_ids)]), np.array([0, *draw(unique_ids)])
  truth = {truth_ids[k]: (kinds[k - 1], crowds[k - 1]) for k in order}
  prediction = {
    prediction_ids[k]: changed_kinds[k - 1] or kinds[k - 1] for k in order if k in prediction_cells
  }
  return (
    segments_of_ids(truth_ids[truth_cells], truth),
    segments_of_ids(prediction_ids[prediction_cells], prediction),
  )


@settings(max_examples=200, deadline=None)
@given(images=st.lists(image_pairs(), min_size=1, max_size=3))
def test_equals_other_packages_on_random_images(tmp_path_factory, other_scores, images):
  folder = tmp_path_factory.mktemp('panoptic')
  assert_equals(other_scores, score(*images), CATEGORIES, images, folder)


def perturbed(truth):
  """The truth moved by a few pixels; crowds become ordinary segments."""
  moved = np.roll(truth.index, (7, 11), axis=(0, 1))
  return truth._replace(index=moved, is_crowd=np.zeros_like(truth.is_crowd))


def test_real_images(coco_sample, tmp_path, other_scores):
  json_path = coco_sample / 'annotations' / 'panoptic_val2017.json'
  categories = PanopticCategories.from_json(json_path)
  against_itself, against_moved = PanopticQuality(categories), PanopticQuality(categories)
  images = []
  for _, truth in read_results(json_path, json_path.with_suffix('')):
    images.append((truth, perturbed(truth)))
    against_itself.update(truth, truth)
    against_moved.update(*images[-1])
  perfect = against_itself.result()
  assert all(perfect[group]['pq'] == 1 for group in ('All', 'Things', 'Stuff'))
  assert perfect['All']['n'] > 50
  assert 0.2 < against_moved.result()['All']['pq'] < 0.9
  assert_equals(other_scores, against_moved, categories, images, tmp_path)


def test_table_by_hand():
  truth = segments_of_ids([5] * 6 + [9] * 4, {5: PERSON, 9: GRASS})
  prediction = segments_of_ids([1] * 5 + [2] * 5, {1: PERSON, 2: GRASS})
  results = {
    'heuristic': score((truth, prediction)).result(),
    'srm, with a name longer than its columns': score((truth, truth)).result(),
  }
  assert format_table(results, CATEGORIES).splitlines() == [
    '       | heuristic                | srm, with a name longer than its columns',
    '       |     PQ    SQ    RQ     N |     PQ    SQ    RQ     N',
    '-------+--------------------------+-----------------------------------------',
    'All    |   81.7  81.7 100.0     2 |  100.0 100.0 100.0     2',
    'Things |   83.3  83.3 100.0     1 |  100.0 100.0 100.0     1',
    'Stuff  |   80.0  80.0 100.0     1 |  100.0 100.0 100.0     1',
    '-------+--------------------------+-----------------------------------------',
    'person |   83.3                   |  100.0',
    'dog    |    0.0                   |    0.0',
    'grass  |   80.0                   |  100.0',
    'sky    |    0.0                   |    0.0',
  ]
